//! The chain driver, optimizer and schedule.
