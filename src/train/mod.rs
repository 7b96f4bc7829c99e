//! The chain driver, optimizer and schedule.
mod pass;
pub mod schedule;
mod unit;
pub use pass::{MicroBatch, PassOptions, PassResult, forward_backward};
pub use unit::Unit;
#[cfg(test)]
mod oracle;
