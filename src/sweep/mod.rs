//! Runs the trials of a sweep.
//!
//! * [`trials`] (`trials`, `trial`): the values of each trial, and its run. A trial's id is its run's id, so a changed
//!   base experiment gives another trial, and an old result is never taken for a new one.
//! * `ledger`: trial numbers and decisions, recorded once; `lease`: only one process works on a trial at a time;
//!   `worker`: that process. The progress of a trial is read from its run, so a killed sweep loses only the steps since
//!   the last checkpoint.
//! * [`TrialStatus`]: the state of a trial.
//! * `halving`: which trials are promoted to the next rung.
//! * [`Results`] (`results`): the output.

mod error;
mod gpu_assignment;
mod halving;
mod lease;
mod ledger;
mod plan;
mod results;
mod scheduler;
mod status;
mod trial;
mod trials;
mod worker;

pub use error::SweepError;
pub use plan::Plan;
pub use results::{Group, Results, TrialResult, cell};
pub use status::TrialStatus;
pub use trial::Trial;
pub use trials::trials;
