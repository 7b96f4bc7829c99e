//! The memory behind a tensor, as slices.

use bytemuck::{AnyBitPattern, NoUninit};
use half::bf16;
use tch::{Device, Kind, Tensor};

/// An element of a tensor's memory. (tch's own trait takes bf16 for f16.)
pub trait Element: AnyBitPattern + NoUninit {
    /// The kind of tensors with such elements.
    const KIND: Kind;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
}

impl Element for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

impl Element for i8 {
    const KIND: Kind = Kind::Int8;
}

impl Element for i64 {
    const KIND: Kind = Kind::Int64;
}

/// Bytes of one element.
pub fn element_bytes(kind: Kind) -> usize {
    kind.elt_size_in_bytes()
}

fn assert_contiguous_cpu(tensor: &Tensor) {
    assert_eq!(tensor.device(), Device::Cpu, "the bytes of a tensor are read on the host");
    assert!(tensor.is_contiguous(), "the bytes of a tensor are read in order");
}

/// The bytes of a contiguous CPU tensor, in order.
///
/// # Panics
/// When the tensor is not contiguous or not on the CPU.
pub fn bytes(tensor: &Tensor) -> &[u8] {
    assert_contiguous_cpu(tensor);
    let length = tensor.numel() * element_bytes(tensor.kind());
    if length == 0 {
        return &[];
    }
    // SAFETY: the storage of a contiguous CPU tensor holds `length` initialised bytes from data_ptr on, and lives as
    // long as the tensor that the slice borrows.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }
}

/// The bytes of a contiguous CPU tensor, to be written.
///
/// # Panics
/// When the tensor is not contiguous or not on the CPU.
pub fn bytes_mut(tensor: &mut Tensor) -> &mut [u8] {
    assert_contiguous_cpu(tensor);
    let length = tensor.numel() * element_bytes(tensor.kind());
    if length == 0 {
        return &mut [];
    }
    // SAFETY: as in `bytes`; the exclusive borrow of the tensor stands for the slice. Another tensor may share the storage,
    // but tch's tensors are not Sync, so nobody reads it while the slice is written on this thread. Every pattern of bits is
    // a value of every kind but Bool, whose storage libtorch reads as bytes.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), length) }
}

/// Asks the processor for the memory that lies `distance` elements after those of `data`, whoever owns it: it is not read.
#[inline]
pub fn fetch_ahead<T>(data: &[T], distance: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(data)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = data.as_ptr().wrapping_add(distance).cast::<i8>().wrapping_add(line);
        // SAFETY: a hint about an address, which no address makes fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, distance);
}

/// The elements of a contiguous i64 CPU tensor.
///
/// # Panics
/// When the tensor is of another kind, not contiguous or not on the CPU.
pub fn i64_slice(tensor: &Tensor) -> &[i64] {
    slice(tensor)
}

/// The elements of a contiguous CPU tensor, in order.
///
/// # Panics
/// When the tensor is of another kind, not contiguous or not on the CPU.
pub fn slice<T: Element>(tensor: &Tensor) -> &[T] {
    assert_eq!(tensor.kind(), T::KIND, "the elements of a tensor");
    let bytes = bytes(tensor);
    // An empty slice of bytes is not aligned for elements.
    if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
}

/// The elements of a contiguous CPU tensor, to be written.
///
/// # Panics
/// When the tensor is of another kind, not contiguous or not on the CPU.
pub fn slice_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    assert_eq!(tensor.kind(), T::KIND, "the elements of a tensor");
    let bytes = bytes_mut(tensor);
    if bytes.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(bytes) }
}

/// A CPU tensor that owns a copy of `bytes`.
///
/// # Panics
/// When the number of bytes does not fit shape and kind.
pub fn tensor_from_bytes(bytes: &[u8], shape: &[i64], kind: Kind) -> Tensor {
    let elements: i64 = shape.iter().product();
    assert_eq!(bytes.len(), elements as usize * element_bytes(kind), "bytes of a {shape:?} {kind:?} tensor");
    Tensor::from_data_size(bytes, shape, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_in_every_float_kind() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double] {
            let tensor = Tensor::arange(24, (Kind::Float, Device::Cpu)).to_kind(kind).reshape([2, 3, 4]);
            let copy = tensor_from_bytes(bytes(&tensor), &[2, 3, 4], kind);
            assert!(copy.equal(&tensor), "{kind:?}");
        }
    }

    #[test]
    fn writing_the_slice_writes_the_tensor() {
        let mut tensor = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        slice_mut::<f32>(&mut tensor).copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(Vec::<f32>::try_from(&tensor).unwrap(), [1.0, 2.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn a_transposed_view_has_no_bytes_in_order() {
        bytes(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).transpose(0, 1));
    }
}
