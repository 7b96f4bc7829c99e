//! Many runs: listed, shown, compared, labelled and removed.
//!
//! [`overview`] reads one run at a glance, [`columns`] and [`filter`] say what is asked of many; [`show`] and [`diff`]
//! look closer; [`used`] knows what a run needs of others, so that [`remove`] and [`garbage`] take nothing that is
//! needed; [`label`] writes down what people think of a run.
//!
//! Only what these commands remove or label is written to; everything else may be asked of a run while it trains.

pub mod columns;
pub mod diff;
pub mod filter;
pub mod garbage;
pub mod label;
pub mod overview;
pub mod remove;
pub mod show;
pub mod used;

pub use columns::{Column, QueryError};
pub use filter::{Condition, Filter};
pub use overview::Overview;
