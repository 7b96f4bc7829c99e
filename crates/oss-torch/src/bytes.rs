//! Access to tensor memory as bytes and typed elements.

use bytemuck::{AnyBitPattern, NoUninit};
use half::bf16;
use tch::{Device, Kind, Tensor};

/// An element type of tensors. (tch's own trait maps bf16 to f16.)
pub trait Element: AnyBitPattern + NoUninit {
    /// The tensor kind with this element type.
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

impl Element for u8 {
    const KIND: Kind = Kind::Uint8;
}

impl Element for i64 {
    const KIND: Kind = Kind::Int64;
}

/// Size of one element in bytes.
pub fn element_bytes(kind: Kind) -> usize {
    kind.elt_size_in_bytes()
}

/// Pointer to the first element of a contiguous CPU tensor, and its size in bytes.
///
/// # Panics
/// Panics if the tensor is not contiguous or not on the CPU.
pub(super) fn memory(tensor: &Tensor) -> (*mut u8, usize) {
    assert_eq!(tensor.device(), Device::Cpu, "tensor bytes are only accessible on the CPU");
    assert!(tensor.is_contiguous(), "the tensor is not contiguous");
    (tensor.data_ptr().cast(), tensor.numel() * element_bytes(tensor.kind()))
}

/// The memory of a contiguous CPU tensor, as elements or as bytes.
///
/// # Safety
/// `T` is the kind's own type or `u8`. While the slice lives, nothing writes the memory, and the tensor keeps its
/// storage.
pub(super) unsafe fn elements<T: AnyBitPattern>(tensor: &Tensor) -> &[T] {
    let (first, len) = memory(tensor);
    if len == 0 {
        return &[];
    }
    // SAFETY: a contiguous tensor's storage holds `len` bytes starting at `first`, where libtorch puts elements of its
    // kind, and any bit pattern is a valid element; the borrowed tensor keeps the storage alive; the rest is the
    // caller's promise.
    unsafe { std::slice::from_raw_parts(first.cast::<T>(), len / size_of::<T>()) }
}

/// Mutable version of [`elements`].
///
/// # Safety
/// As for [`elements`]; in addition, nothing else reads the memory.
pub(super) unsafe fn elements_mut<T: AnyBitPattern>(tensor: &mut Tensor) -> &mut [T] {
    let (first, len) = memory(tensor);
    if len == 0 {
        return &mut [];
    }
    // SAFETY: as in `elements`.
    unsafe { std::slice::from_raw_parts_mut(first.cast::<T>(), len / size_of::<T>()) }
}

pub(super) fn assert_kind<T: Element>(tensor: &Tensor) {
    assert_eq!(tensor.kind(), T::KIND, "the element type does not match the tensor's kind");
}

/// Prefetches the memory `distance` elements past the end of `data`. The address may belong to anything: it is not
/// read.
#[inline]
pub fn fetch_ahead<T>(data: &[T], distance: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(data)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = data.as_ptr().wrapping_add(distance).cast::<i8>().wrapping_add(line);
        // SAFETY: a prefetch is a hint; no address makes it fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, distance);
}

/// Copies the elements of a contiguous CPU tensor, in order.
///
/// # Panics
/// Panics if the tensor has another kind, is not contiguous or is not on the CPU.
pub fn to_vec<T: Element>(tensor: &Tensor) -> Vec<T> {
    assert_kind::<T>(tensor);
    let mut elements = vec![T::zeroed(); tensor.numel()];
    copy_bytes(tensor, 0, bytemuck::cast_slice_mut(&mut elements));
    elements
}

/// Fills `into` with bytes of a contiguous CPU tensor, starting at byte `start`.
///
/// # Panics
/// Panics if the tensor is too short, is not contiguous or is not on the CPU.
pub fn copy_bytes(tensor: &Tensor, start: usize, into: &mut [u8]) {
    let (first, len) = memory(tensor);
    assert!(start <= len && into.len() <= len - start, "{} bytes at offset {start} of {len}", into.len());
    // SAFETY: the tensor is borrowed and holds these bytes, and `into` is not part of a tensor: a mutable slice of a
    // tensor's memory comes with the promise that the memory is not read otherwise.
    unsafe { into.as_mut_ptr().copy_from_nonoverlapping(first.add(start), into.len()) };
}

/// Creates a CPU tensor that owns a copy of `bytes`.
///
/// # Panics
/// Panics if the number of bytes does not match the shape and kind.
pub fn tensor_from_bytes(bytes: &[u8], shape: &[i64], kind: Kind) -> Tensor {
    let elements: i64 = shape.iter().product();
    assert_eq!(bytes.len(), elements as usize * element_bytes(kind), "wrong size for {shape:?} {kind:?}");
    Tensor::from_data_size(bytes, shape, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_in_every_float_kind() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double] {
            let tensor = Tensor::arange(24, (Kind::Float, Device::Cpu)).to_kind(kind).reshape([2, 3, 4]);
            let mut bytes = vec![0; 24 * element_bytes(kind)];
            copy_bytes(&tensor, 0, &mut bytes);
            let copy = tensor_from_bytes(&bytes, &[2, 3, 4], kind);
            assert!(copy.equal(&tensor), "{kind:?}");
        }
    }

    #[test]
    fn bytes_are_copied_from_any_offset() {
        let tensor = Tensor::from_slice(&[1i64, 2, 3]);
        assert_eq!(to_vec::<i64>(&tensor), [1, 2, 3]);
        let mut bytes = [0; 9];
        copy_bytes(&tensor, 15, &mut bytes);
        assert_eq!(bytes, [0, 3, 0, 0, 0, 0, 0, 0, 0]);
        copy_bytes(&tensor, 24, &mut []);
    }

    #[test]
    #[should_panic(expected = "2 bytes at offset 23 of 24")]
    fn copies_past_the_end_panic() {
        copy_bytes(&Tensor::from_slice(&[1i64, 2, 3]), 23, &mut [0; 2]);
    }
}
