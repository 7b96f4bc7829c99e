//! Executes the plan: finds or creates the run, runs stale stages in order, and records the outcome.

mod commands;
mod completion;
mod compute;
mod data;
mod disk_space;
mod execution;
mod inspect;
pub mod loaded_run;
mod preflight;
mod progress;
mod reproduce;
mod resume;
mod session;
mod stage_loop;
mod summary;

pub use commands::{RUN, dismiss, follow};
pub use completion::{complete, unresolved};
pub use execution::{Execution, Options};
pub use reproduce::{Compared, Difference, Extent, Reproduced, Reproduction};
pub use resume::Resuming;
pub use summary::{StageSummary, Summary};
