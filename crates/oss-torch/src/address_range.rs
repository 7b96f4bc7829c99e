//! Address ranges of tensors.

use tch::Tensor;

use super::bytes::element_bytes;

/// The address range from a tensor's first element to the end of its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressRange {
    start: usize,
    end: usize,
}

impl AddressRange {
    /// The empty range.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// The range of a CPU tensor of any strides.
    pub fn of(tensor: &Tensor) -> Self {
        let axes = tensor.size().into_iter().zip(tensor.stride());
        let axes = axes.map(|(size, stride)| (size as usize, stride as usize));
        Self::strided(tensor.data_ptr().cast_const().cast(), axes, element_bytes(tensor.kind()))
    }

    /// The range of elements of `bytes` each, given the sizes and strides of their dimensions.
    pub fn strided(first: *const u8, axes: impl Iterator<Item = (usize, usize)>, bytes: usize) -> Self {
        let mut last = 0;
        for (size, stride) in axes {
            if size == 0 {
                return Self::EMPTY;
            }
            last += (size - 1) * stride;
        }
        Self::new(first, (last + 1) * bytes)
    }

    /// `len` bytes starting at `first`.
    pub fn new(first: *const u8, len: usize) -> Self {
        let start = first.addr();
        if len == 0 { Self::EMPTY } else { Self { start, end: start + len } }
    }

    /// Whether the two ranges overlap.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn views_that_share_elements_overlap() {
        let whole = Tensor::zeros([6, 4], (Kind::Float, Device::Cpu));
        let range = |from: i64, len: i64| AddressRange::of(&whole.narrow(0, from, len));
        assert!(!range(0, 3).overlaps(range(3, 3)));
        assert!(range(0, 4).overlaps(range(3, 3)));
        assert!(range(1, 1).overlaps(AddressRange::of(&whole.transpose(0, 1))));
        assert!(!range(2, 0).overlaps(AddressRange::of(&whole)));
        let other = whole.copy();
        assert!(!AddressRange::of(&whole).overlaps(AddressRange::of(&other)));
        // A range of columns spans from the first to the last element, including what is in between.
        let column = |index: i64| AddressRange::of(&whole.select(1, index));
        assert!(column(0).overlaps(column(3)));
        assert!(!range(0, 1).overlaps(AddressRange::of(&whole.narrow(0, 1, 5).select(1, 0))));
    }
}
