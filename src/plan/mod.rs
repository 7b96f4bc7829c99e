//! From an experiment to stages, keys, staleness and estimates.

pub mod estimate;
pub mod keys;
pub mod memory;
mod stage;
pub mod staleness;
pub mod table;

pub use stage::Stage;
