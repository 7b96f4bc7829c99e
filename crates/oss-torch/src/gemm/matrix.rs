//! A matrix in memory: what a thread needs of a tensor.

use tch::{Device, Kind, Tensor};

#[cfg(target_arch = "x86_64")]
use super::{bf16, few};
use crate::address_range::AddressRange;
use crate::bytes::element_bytes;

/// Its tensor outlives it. Strides are in elements.
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

    /// One of the matrices of a tensor with three axes.
    pub fn nth(tensor: &Tensor, index: usize) -> Self {
        let (count, stride) = (tensor.size()[0] as usize, tensor.stride()[0] as isize);
        assert!(index < count, "matrix {index} of {count}");
        let first = Self::last_axes(tensor, 3);
        let offset = index as isize * stride * first.kind.elt_size_in_bytes() as isize;
        // SAFETY: inside of the tensor, as was checked.
        Self { data: unsafe { first.data.offset(offset) }, ..first }
    }

    /// The last two of so many axes.
    fn last_axes(tensor: &Tensor, axes: usize) -> Self {
        assert_eq!(tensor.device(), Device::Cpu, "a product on the CPU");
        let (sizes, strides) = (tensor.size(), tensor.stride());
        assert_eq!(sizes.len(), axes, "the axes of a factor");
        Self {
            data: tensor.data_ptr().cast(),
            kind: tensor.kind(),
            sizes: [sizes[axes - 2] as usize, sizes[axes - 1] as usize],
            strides: [strides[axes - 2] as isize, strides[axes - 1] as isize],
        }
    }

    /// Where its elements lie.
    pub fn addresses(self) -> AddressRange {
        let axes = self.sizes.into_iter().zip(self.strides.map(|stride| stride as usize));
        AddressRange::strided(self.data, axes, element_bytes(self.kind))
    }

    /// Whether each element has a place of its own, so that threads may write different ones.
    pub fn is_apart_from_itself(self) -> bool {
        // From the first element to the last of each axis; an axis of one element goes nowhere.
        let [down, across] =
            [0, 1].map(|axis| (self.sizes[axis].saturating_sub(1) as isize, self.strides[axis]));
        let (short, long) = if down.1 < across.1 { (down, across) } else { (across, down) };
        // The longer steps go past all that the shorter ones reach.
        (short.0 == 0 || short.1 > 0) && (long.0 == 0 || long.1 > short.0 * short.1)
    }

    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, across]) = (self.sizes, self.strides);
        Self { sizes: [columns, rows], strides: [across, down], ..self }
    }

    /// Some of its rows.
    pub fn rows(self, start: usize, len: usize) -> Self {
        let [rows, columns] = self.sizes;
        assert!(start + len <= rows, "rows {start} to {} of {rows}", start + len);
        let offset = start as isize * self.strides[0] * self.kind.elt_size_in_bytes() as isize;
        // SAFETY: inside of the matrix, or right behind it, as was checked.
        Self { data: unsafe { self.data.offset(offset) }, sizes: [len, columns], ..self }
    }

    /// What lies right and below of an element.
    ///
    /// # Safety
    /// The element lies in the matrix, or right behind it.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn factor(self, row: usize, column: usize) -> bf16::Factor {
        // SAFETY: the caller's promise.
        let data = unsafe { self.at::<u16>(row, column) };
        bf16::Factor { data, row_stride: self.strides[0], column_stride: self.strides[1] }
    }

    /// What lies right and below of an element, to be written.
    ///
    /// # Safety
    /// The element lies in the matrix, whose columns are neighbours, or right behind it.
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

    /// The rows from an element on.
    ///
    /// # Safety
    /// The element lies in the matrix, or right behind it.
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
    /// The element lies in the matrix, or right behind it.
    pub unsafe fn at<T>(self, row: usize, column: usize) -> *mut T {
        let offset = row as isize * self.strides[0] + column as isize * self.strides[1];
        // SAFETY: the caller's promise.
        unsafe { self.data.cast::<T>().offset(offset) }
    }
}
