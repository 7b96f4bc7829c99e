//! The contents of a checkpoint: pieces of named tensors.

use std::ops::Range;

use tch::Tensor;

/// Prefix of all names of optimizer state; all other names are weights.
pub const OPTIMIZER_PREFIX: &str = "optimizer.";

/// One rank's piece of a named tensor.
#[derive(Debug)]
pub struct Entry {
    /// Hugging Face name of a weight, or `optimizer.<what>/<name>`.
    pub name: String,
    /// Shape of the whole tensor.
    pub shape: Vec<i64>,
    /// The flattened elements of the whole tensor that are in `tensor`. A rank without any may omit the entry.
    pub range: Range<i64>,
    /// The piece: `range.len()` elements in any shape, on any device.
    pub tensor: Tensor,
}

impl Entry {
    /// An entry with all of `tensor`.
    pub fn whole(name: impl Into<String>, tensor: &Tensor) -> Self {
        let shape = tensor.size();
        Self { name: name.into(), range: 0..tensor.numel() as i64, shape, tensor: tensor.shallow_clone() }
    }
}
