//! Products of small blocks of memory on the calling thread, for use inside kernels.

use tch::Kind;

use super::matrix::Matrix;
use super::product::{Part, Product, Start};
use crate::Element;

/// A matrix in a slice; strides are in elements.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a, T> {
    /// Begins with the matrix's first element.
    pub data: &'a [T],
    /// Stride between rows.
    pub row_stride: usize,
    /// Stride between columns.
    pub column_stride: usize,
}

impl<'a, T: Element> Block<'a, T> {
    /// A row-major matrix.
    pub fn new(data: &'a [T], columns: usize) -> Self {
        Self { data, row_stride: columns, column_stride: 1 }
    }

    /// The transpose.
    pub fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn matrix(&self, rows: usize, columns: usize) -> Matrix {
        let last = rows.saturating_sub(1) * self.row_stride + columns.saturating_sub(1) * self.column_stride;
        assert!(
            rows * columns == 0 || last < self.data.len(),
            "a block of {rows} x {columns} does not fit in {} elements",
            self.data.len()
        );
        Matrix {
            data: self.data.as_ptr().cast_mut().cast(),
            kind: T::KIND,
            sizes: [rows, columns],
            strides: [self.row_stride as isize, self.column_stride as isize],
        }
    }
}

/// `into [m, n] = a [m, k] @ b [k, n]` in f32; with `adds`, accumulates into `into`. The element type must be one that
/// [`super::has_gemm`] supports.
///
/// # Panics
/// Panics if a slice is too short, or the processor does not support products of this element type.
pub fn block_product<T: Element>(
    into: &mut [f32],
    a: Block<'_, T>,
    b: Block<'_, T>,
    (m, n, k): (usize, usize, usize),
    adds: bool,
) {
    assert!(m * n <= into.len(), "a product of {m} x {n} does not fit in {} elements", into.len());
    let start = if adds { Start::Itself } else { Start::Zero };
    let into =
        Matrix { data: into.as_mut_ptr().cast(), kind: Kind::Float, sizes: [m, n], strides: [n as isize, 1] };
    let whole = Part { rows: (0, m), columns: (0, n) };
    // SAFETY: the sizes were checked, and `into` is borrowed mutably, apart from the factors, which are only read.
    unsafe { Product::new(into, a.matrix(m, k), b.matrix(k, n), start).part(whole) }
}
