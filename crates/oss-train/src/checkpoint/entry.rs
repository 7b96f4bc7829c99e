//! What a checkpoint stores: pieces of named tensors.

use std::ops::Range;

use tch::Tensor;

/// What every name of optimizer state starts with; all other names are weights.
pub const OPTIMIZER_PREFIX: &str = "optimizer.";

/// One rank's piece of a named tensor.
#[derive(Debug)]
pub struct Entry {
    /// Hugging Face name of a weight, or `optimizer.<what>/<name>`.
    pub name: String,
    /// Shape of the whole tensor.
    pub shape: Vec<i64>,
    /// Flattened elements of the whole tensor that `tensor` holds; a rank that holds none of it may leave the entry
    /// out.
    pub range: Range<i64>,
    /// The piece: `range.len()` elements in any shape, on any device.
    pub tensor: Tensor,
}

impl Entry {
    /// An entry that holds all of `tensor`.
    pub fn whole(name: impl Into<String>, tensor: &Tensor) -> Self {
        let shape = tensor.size();
        Self { name: name.into(), range: 0..tensor.numel() as i64, shape, tensor: tensor.shallow_clone() }
    }
}
