//! Tensor memory as slices: the boundary between safe and unsafe code.
//!
//! A tch tensor is a handle. `shallow_clone` and every view create another handle to the same memory from a shared
//! reference, and in-place operations write through any of them. So neither `&Tensor` nor `&mut Tensor` guarantees what
//! Rust's references promise, and no safe function can turn one into a slice. Memory becomes a slice in two ways:
//!
//! * [`Slices`], for loops over tensors that have other handles. Creating one is `unsafe`: the author of the loop
//!   promises that nothing else accesses the tensors until the loop is over. That the loop's own tensors do not overlap
//!   is checked.
//! * [`OwnedTensor`](super::OwnedTensor), safe for all callers: a tensor whose memory no other handle references.
//!
//! [`to_vec`](super::to_vec) and [`copy_bytes`](super::copy_bytes) copy and lend nothing.
//!
//! Assumption: tch declares its tensors `Send`, and leaves it to programs not to use handles to one storage on two
//! threads at once. Slices cannot cause or fix that, and no type here can. In this program, a thread that is given
//! tensors is given all their handles (prefetched batches), or moves them under c10d's own rules
//! ([`ProcessGroup`](super::ProcessGroup)).

use std::cell::RefCell;

use tch::Tensor;

use super::address_range::AddressRange;
use super::bytes::{Element, assert_kind, elements, elements_mut, memory};

/// More tensors than any loop uses.
const MAX_SLICES: usize = 16;

/// Slices of the tensors used by one loop.
///
/// The loop's results must not share memory with its other tensors. This is asserted, so a kernel that is given
/// overlapping tensors panics instead of computing nonsense.
///
/// Slices of two handles to one storage, one of them mutable, do not compile without `unsafe`, and panic with it:
///
/// ```compile_fail,E0133
/// # use oss_torch::Slices;
/// # use tch::{Device, Kind, Tensor};
/// let a = Tensor::zeros([4], (Kind::Float, Device::Cpu));
/// let mut b = a.shallow_clone();
/// let slices = Slices::new();
/// let (x, y) = (slices.of::<f32>(&a), slices.of_mut::<f32>(&mut b));
/// y[0] = x[1];
/// ```
///
/// ```should_panic
/// # use oss_torch::Slices;
/// # use tch::{Device, Kind, Tensor};
/// let a = Tensor::zeros([4], (Kind::Float, Device::Cpu));
/// let mut b = a.shallow_clone();
/// // SAFETY: nothing else touches the two.
/// let slices = unsafe { Slices::new() };
/// let (x, y) = (slices.of::<f32>(&a), slices.of_mut::<f32>(&mut b));
/// y[0] = x[1];
/// ```
///
/// Nor can a slice outlive its `Slices`:
///
/// ```compile_fail,E0597
/// # use oss_torch::Slices;
/// # use tch::{Device, Kind, Tensor};
/// let mut a = Tensor::zeros([4], (Kind::Float, Device::Cpu));
/// let x = {
///     let slices = unsafe { Slices::new() };
///     slices.of::<f32>(&a)
/// };
/// assert_eq!(x[0], 0.0);
/// ```
#[derive(Debug)]
pub struct Slices {
    borrows: RefCell<Borrows>,
}

/// The address ranges of the slices, and whether each is mutable.
#[derive(Debug)]
struct Borrows {
    ranges: [(AddressRange, bool); MAX_SLICES],
    count: usize,
}

impl Slices {
    /// Creates a set without slices.
    ///
    /// # Safety
    /// As long as a slice from this set is in use, its tensor's memory is written only through slices from this set,
    /// and memory that they may write is not read by anything else either: by no libtorch operation and no slice from
    /// another [`Slices`], through any handle and on any thread, and by no queued copy. Nor does anything give the
    /// tensor other memory (`resize_`, `set_data`).
    pub unsafe fn new() -> Self {
        Self {
            borrows: RefCell::new(Borrows { ranges: [(AddressRange::EMPTY, false); MAX_SLICES], count: 0 }),
        }
    }

    /// The elements of a contiguous CPU tensor, in order.
    ///
    /// # Panics
    /// Panics if the tensor has another kind, is not contiguous, is not on the CPU, or shares memory with a mutable
    /// slice.
    pub fn of<'a, T: Element>(&'a self, tensor: &'a Tensor) -> &'a [T] {
        assert_kind::<T>(tensor);
        self.lend(tensor, false);
        // SAFETY: of this kind, and nothing writes it, as was checked of these slices and promised of the rest.
        unsafe { elements(tensor) }
    }

    /// The elements of a contiguous CPU tensor, as a mutable slice.
    ///
    /// # Panics
    /// Panics as [`Self::of`] does, and if the tensor shares memory with any other slice.
    pub fn of_mut<'a, T: Element>(&'a self, tensor: &'a mut Tensor) -> &'a mut [T] {
        assert_kind::<T>(tensor);
        self.lend(tensor, true);
        // SAFETY: as in `of`, and nothing else reads it, as was checked and promised.
        unsafe { elements_mut(tensor) }
    }

    /// The bytes of a contiguous CPU tensor of any kind, in order.
    ///
    /// # Panics
    /// Panics as [`Self::of`] does.
    pub fn bytes_of<'a>(&'a self, tensor: &'a Tensor) -> &'a [u8] {
        self.lend(tensor, false);
        // SAFETY: as in `of`.
        unsafe { elements(tensor) }
    }

    /// The bytes of a contiguous CPU tensor of any kind, as a mutable slice.
    ///
    /// # Panics
    /// Panics as [`Self::of_mut`] does.
    pub fn bytes_of_mut<'a>(&'a self, tensor: &'a mut Tensor) -> &'a mut [u8] {
        self.lend(tensor, true);
        // SAFETY: as in `of_mut`.
        unsafe { elements_mut(tensor) }
    }

    fn lend(&self, tensor: &Tensor, is_written: bool) {
        let (first, len) = memory(tensor);
        let range = AddressRange::new(first, len);
        let Borrows { ranges, count } = &mut *self.borrows.borrow_mut();
        let clashes = ranges[..*count]
            .iter()
            .any(|&(other, other_is_written)| (is_written || other_is_written) && range.overlaps(other));
        assert!(!clashes, "{OVERLAP}");
        ranges[*count] = (range, is_written);
        *count += 1;
    }
}

/// Panic message of kernels and products for overlapping tensors.
pub(super) const OVERLAP: &str = "a result shares memory with another tensor of the same loop";

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn zeros(len: i64) -> Tensor {
        Tensor::zeros([len], (Kind::Float, Device::Cpu))
    }

    fn slices() -> Slices {
        // SAFETY: nothing else uses the tests' tensors.
        unsafe { Slices::new() }
    }

    #[test]
    fn writing_the_slice_writes_the_tensor() {
        let mut tensor = zeros(3);
        slices().of_mut::<f32>(&mut tensor).copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(Vec::<f32>::try_from(&tensor).unwrap(), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn disjoint_views_of_one_storage_can_be_sliced_together() {
        let whole = zeros(8);
        let [a, mut b, mut c] = [(0, 4), (4, 2), (6, 2)].map(|(from, len)| whole.narrow(0, from, len));
        let slices = slices();
        let (a, again) = (slices.of::<f32>(&a), slices.of::<f32>(&a));
        let (b, c) = (slices.of_mut::<f32>(&mut b), slices.of_mut::<f32>(&mut c));
        b.copy_from_slice(&a[..2]);
        c.copy_from_slice(&again[2..]);
    }

    #[test]
    fn empty_views_overlap_nothing() {
        let whole = zeros(4);
        let (mut none, mut all) = (whole.narrow(0, 2, 0), whole.shallow_clone());
        let slices = slices();
        assert_eq!(slices.of_mut::<f32>(&mut none).len(), 0);
        assert_eq!(slices.of_mut::<f32>(&mut all).len(), 4);
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn memory_being_read_cannot_be_written() {
        let a = zeros(4);
        let mut b = a.narrow(0, 3, 1);
        let slices = slices();
        slices.of::<f32>(&a);
        slices.of_mut::<f32>(&mut b);
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn memory_being_written_cannot_be_read() {
        let mut a = zeros(4);
        let b = a.view_dtype(Kind::BFloat16);
        let slices = slices();
        slices.of_mut::<f32>(&mut a);
        slices.bytes_of(&b);
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn memory_cannot_be_written_twice() {
        let (mut a, slices) = (zeros(4), slices());
        let mut b = a.shallow_clone();
        slices.of_mut::<f32>(&mut a);
        slices.bytes_of_mut(&mut b);
    }

    #[test]
    #[should_panic(expected = "not contiguous")]
    fn a_transposed_view_is_not_contiguous() {
        slices().of::<f32>(&zeros(6).view([2, 3]).transpose(0, 1));
    }
}
