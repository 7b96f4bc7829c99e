//! Validation loss.
