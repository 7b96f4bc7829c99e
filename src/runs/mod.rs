//! Lists, shows, compares, labels and removes runs.
//!
//! [`overview`] summarizes a run; [`columns`] and [`filter`] query many, and [`select`] resolves arguments that name many. [`show`] and [`diff`] give details. [`used`]
//! finds what a run needs from others, so that [`remove`] and [`garbage`] keep it. [`label`] changes labels and notes.
//!
//! Only removing and labeling write to a run; everything else also works while it is in progress.

pub mod columns;
pub mod diff;
pub mod filter;
pub mod garbage;
pub mod label;
pub mod overview;
pub mod remove;
pub mod select;
pub mod show;
pub mod used;

pub use columns::{Column, QueryError};
pub use filter::{Condition, Filter};
pub use overview::Overview;
