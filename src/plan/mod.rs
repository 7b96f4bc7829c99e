//! From an experiment to stages, keys, staleness and estimates.

pub mod keys;
mod stage;
mod table;

pub use stage::Stage;
