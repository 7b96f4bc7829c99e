//! Products of small blocks of memory, on the calling thread: what kernels that multiply are made of.

use tch::Kind;

use super::matrix::Matrix;
use super::product::{Part, Product, Start};
use crate::Element;

/// A matrix in a slice, strides in elements.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a, T> {
    /// The first element is the matrix's.
    pub data: &'a [T],
    /// From a row to the next.
    pub row_stride: usize,
    /// From a column to the next.
    pub column_stride: usize,
}

impl<'a, T: Element> Block<'a, T> {
    /// Rows of neighbours, one after the other.
    pub fn new(data: &'a [T], columns: usize) -> Self {
        Self { data, row_stride: columns, column_stride: 1 }
    }

    /// Its transpose.
    pub fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn matrix(&self, rows: usize, columns: usize) -> Matrix {
        let last = rows.saturating_sub(1) * self.row_stride + columns.saturating_sub(1) * self.column_stride;
        assert!(
            rows * columns == 0 || last < self.data.len(),
            "a block of {rows} x {columns} in {}",
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

/// `into [m, n] = a [m, k] @ b [k, n]`, in f32; `adds` to what is there. The elements are of a kind that [`super::has_gemm`]
/// takes.
///
/// # Panics
/// When a slice is too short, or the processor has no product of such elements.
pub fn block_product<T: Element>(
    into: &mut [f32],
    a: Block<'_, T>,
    b: Block<'_, T>,
    (m, n, k): (usize, usize, usize),
    adds: bool,
) {
    assert!(m * n <= into.len(), "a product of {m} x {n} in {}", into.len());
    let start = if adds { Start::Itself } else { Start::Zero };
    let into =
        Matrix { data: into.as_mut_ptr().cast(), kind: Kind::Float, sizes: [m, n], strides: [n as isize, 1] };
    let whole = Part { rows: (0, m), columns: (0, n) };
    // SAFETY: the sizes were checked, and `into` is borrowed apart from the factors, which are only read.
    unsafe { Product::new(into, a.matrix(m, k), b.matrix(k, n), start).part(whole) }
}
