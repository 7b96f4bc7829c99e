//! Our checkpoints.
