//! Operations of libtorch that tch lacks.

use tch::{Kind, Tensor};

/// The bytes of a contiguous CPU tensor.
pub fn bytes(tensor: &Tensor) -> &[u8] {
    assert!(tensor.is_contiguous() && tensor.device() == tch::Device::Cpu);
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length == 0 {
        return &[];
    }
    // SAFETY: the storage of a contiguous CPU tensor spans `length` bytes and lives as long as the borrow.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }
}

/// A tensor of the given shape and kind that copies `bytes`.
pub fn tensor_from_bytes(bytes: &[u8], shape: &[i64], kind: Kind) -> Tensor {
    Tensor::from_data_size(bytes, shape, kind)
}
