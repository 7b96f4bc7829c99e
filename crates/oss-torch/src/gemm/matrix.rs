//! A matrix in memory: the parts of a tensor that a thread needs.

use tch::{Device, Kind, Tensor};

#[cfg(target_arch = "x86_64")]
use super::{bf16, few};
use crate::address_range::AddressRange;
use crate::bytes::element_bytes;

/// Does not keep its tensor alive. Strides are in elements.
#[derive(Clone, Copy)]
pub struct Matrix {
    pub data: *mut u8,
    pub kind: Kind,
    pub sizes: [usize; 2],
    pub strides: [isize; 2],
}

impl Matrix {
    pub fn of(tensor: &Tensor) -> Self {
        Self::last_axes(tensor, 2)
    }

    /// One matrix of a three-dimensional tensor.
    pub fn nth(tensor: &Tensor, index: usize) -> Self {
        let (count, stride) = (tensor.size()[0] as usize, tensor.stride()[0] as isize);
        assert!(index < count, "matrix {index} is out of range for {count}");
        let first = Self::last_axes(tensor, 3);
        let offset = index as isize * stride * first.kind.elt_size_in_bytes() as isize;
        // SAFETY: within the tensor, as was checked.
        Self { data: unsafe { first.data.offset(offset) }, ..first }
    }

    /// The last two dimensions of a tensor with `axes` dimensions.
    fn last_axes(tensor: &Tensor, axes: usize) -> Self {
        assert_eq!(tensor.device(), Device::Cpu, "matrix products here are for CPU tensors");
        let (sizes, strides) = (tensor.size(), tensor.stride());
        assert_eq!(sizes.len(), axes, "wrong number of dimensions");
        Self {
            data: tensor.data_ptr().cast(),
            kind: tensor.kind(),
            sizes: [sizes[axes - 2] as usize, sizes[axes - 1] as usize],
            strides: [strides[axes - 2] as isize, strides[axes - 1] as isize],
        }
    }

    /// The address range of its elements.
    pub fn addresses(self) -> AddressRange {
        let axes = self.sizes.into_iter().zip(self.strides.map(|stride| stride as usize));
        AddressRange::strided(self.data, axes, element_bytes(self.kind))
    }

    /// Whether no two elements share memory, so that threads may write different ones.
    pub fn is_apart_from_itself(self) -> bool {
        // The distance from the first to the last element of each dimension; a dimension of one element spans nothing.
        let [down, across] =
            [0, 1].map(|axis| (self.sizes[axis].saturating_sub(1) as isize, self.strides[axis]));
        let (short, long) = if down.1 < across.1 { (down, across) } else { (across, down) };
        // Longer strides must step past everything that the shorter ones reach.
        (short.0 == 0 || short.1 > 0) && (long.0 == 0 || long.1 > short.0 * short.1)
    }

    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, across]) = (self.sizes, self.strides);
        Self { sizes: [columns, rows], strides: [across, down], ..self }
    }

    /// A range of rows.
    pub fn rows(self, start: usize, len: usize) -> Self {
        let [rows, columns] = self.sizes;
        assert!(start + len <= rows, "rows {start} to {} are out of range for {rows}", start + len);
        let offset = start as isize * self.strides[0] * self.kind.elt_size_in_bytes() as isize;
        // SAFETY: within the matrix, or one past its end, as was checked.
        Self { data: unsafe { self.data.offset(offset) }, sizes: [len, columns], ..self }
    }

    /// A pointer to the submatrix that begins at an element.
    ///
    /// # Safety
    /// The element is in the matrix, or one past its end.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn factor(self, row: usize, column: usize) -> bf16::Factor {
        // SAFETY: the caller's promise.
        let data = unsafe { self.at::<u16>(row, column) };
        bf16::Factor { data, row_stride: self.strides[0], column_stride: self.strides[1] }
    }

    /// A mutable pointer to the submatrix that begins at an element.
    ///
    /// # Safety
    /// The element is in the matrix, whose rows are contiguous, or one past its end.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn target(self, row: usize, column: usize) -> bf16::Target {
        let row_stride = self.strides[0];
        // SAFETY: the caller's promise.
        unsafe {
            match self.kind {
                Kind::BFloat16 => bf16::Target::Bf16 { data: self.at(row, column), row_stride },
                _ => bf16::Target::F32 { data: self.at(row, column), row_stride },
            }
        }
    }

    /// The lines that begin at an element.
    ///
    /// # Safety
    /// The element is in the matrix, or one past its end.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn lines(self, row: usize, column: usize) -> few::Lines {
        let bytes = self.kind.elt_size_in_bytes();
        // SAFETY: the caller's promise.
        let data = unsafe {
            match self.kind {
                Kind::BFloat16 => self.at::<u16>(row, column).cast_const().cast(),
                _ => self.at::<f32>(row, column).cast_const().cast(),
            }
        };
        few::Lines { data, stride: self.strides[0] * bytes as isize }
    }

    /// # Safety
    /// The element is in the matrix, or one past its end.
    pub unsafe fn at<T>(self, row: usize, column: usize) -> *mut T {
        let offset = row as isize * self.strides[0] + column as isize * self.strides[1];
        // SAFETY: the caller's promise.
        unsafe { self.data.cast::<T>().offset(offset) }
    }
}
