//! Self-contained HTML reports on runs and sweeps.
//!
//! * [`Report`]: the content, read from the run directories (`run`, `curves`, `samples`) and rendered as a page.
//! * [`best_runs`]: the best runs of a sweep.
//!
//! The page loads no external resources: styles, data and scripts are inline, and a content security policy forbids
//! anything else.

mod clock;
mod configuration;
mod curves;
mod document;
mod names;
mod page;
mod run;
mod samples;
mod sweep;
mod thin;

pub use document::Report;
pub use sweep::best_runs;
