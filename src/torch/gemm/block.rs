//! Products of small blocks of memory, on the calling thread: what kernels that multiply are made of.

use half::bf16;

use crate::torch::Element;

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

impl<'a, T> Block<'a, T> {
    /// Rows of neighbours, one after the other.
    pub fn new(data: &'a [T], columns: usize) -> Self {
        Self { data, row_stride: columns, column_stride: 1 }
    }

    /// Its transpose.
    pub fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn assert_holds(&self, rows: usize, columns: usize) {
        let last = rows.saturating_sub(1) * self.row_stride + columns.saturating_sub(1) * self.column_stride;
        assert!(
            rows * columns == 0 || last < self.data.len(),
            "a block of {rows} x {columns} in {}",
            self.data.len()
        );
    }
}

/// An element that blocks can have, where [`super::has_gemm`] says so of its kind.
pub trait BlockElement: Element {
    /// [`add_product`], whose sizes are checked.
    ///
    /// # Safety
    /// The blocks hold `[m, k]` and `[k, n]`, `into` `[m, n]`.
    #[doc(hidden)]
    unsafe fn add(
        into: &mut [f32],
        a: Block<'_, Self>,
        b: Block<'_, Self>,
        size: (usize, usize, usize),
        adds: bool,
    );
}

/// `into [m, n] = a [m, k] @ b [k, n]`, in f32; `adds` to what is there.
///
/// # Panics
/// When a slice is too short, or the processor has no product of such elements.
pub fn block_product<T: BlockElement>(
    into: &mut [f32],
    a: Block<'_, T>,
    b: Block<'_, T>,
    (m, n, k): (usize, usize, usize),
    adds: bool,
) {
    a.assert_holds(m, k);
    b.assert_holds(k, n);
    assert!(m * n <= into.len(), "a product of {m} x {n} in {}", into.len());
    // SAFETY: the sizes were just checked, and `into` is borrowed apart from the factors.
    unsafe { T::add(into, a, b, (m, n, k), adds) }
}

impl BlockElement for f32 {
    unsafe fn add(
        into: &mut [f32],
        a: Block<'_, Self>,
        b: Block<'_, Self>,
        (m, n, k): (usize, usize, usize),
        adds: bool,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                into.as_mut_ptr(),
                1,
                n as isize,
                adds,
                a.data.as_ptr(),
                a.column_stride as isize,
                a.row_stride as isize,
                b.data.as_ptr(),
                b.column_stride as isize,
                b.row_stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

impl BlockElement for bf16 {
    #[cfg(target_arch = "x86_64")]
    unsafe fn add(
        into: &mut [f32],
        a: Block<'_, Self>,
        b: Block<'_, Self>,
        (m, n, k): (usize, usize, usize),
        adds: bool,
    ) {
        use super::{Start, bf16};
        assert!(bf16::is_best(), "a product of bf16 on a processor that has none");
        let factor = |block: Block<'_, Self>| bf16::Factor {
            data: block.data.as_ptr().cast(),
            row_stride: block.row_stride as isize,
            column_stride: block.column_stride as isize,
        };
        let into = bf16::Target::F32 { data: into.as_mut_ptr(), row_stride: n as isize };
        let start = if adds { Start::Itself } else { Start::Zero };
        // SAFETY: the caller's promise.
        unsafe { bf16::multiply(into, factor(a), factor(b), (m, n, k), start) }
    }

    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn add(_: &mut [f32], _: Block<'_, Self>, _: Block<'_, Self>, _: (usize, usize, usize), _: bool) {
        panic!("a product of bf16 on a processor that has none");
    }
}
