//! A matrix product in memory, split across threads.

use gemm::Parallelism;
use tch::Kind;

use super::kind_has_gemm;
use super::matrix::Matrix;
#[cfg(target_arch = "x86_64")]
use super::{bf16, few};
use crate::address_range::AddressRange;
use crate::parallel::{num_threads, parallel_each, shares};

/// Multiplications that justify another thread.
const MIN_WORK: usize = 1 << 18;

/// Multiplications that take as long as reading one element of a factor.
const WORK_OF_READING: usize = 8;

/// A product of matrices with matching shapes.
#[derive(Clone, Copy)]
pub struct Product {
    into: Matrix,
    a: Matrix,
    b: Matrix,
    start: Start,
}

/// [`super::Accumulate`] as pointers.
#[derive(Clone, Copy)]
pub enum Start {
    Zero,
    Itself,
    /// One value per column.
    Row(*const f32),
    /// One value per row.
    Column(*const f32),
}

impl Start {
    /// The addend for the submatrix that begins at an element.
    ///
    /// # Safety
    /// The element is in the product.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn from(self, first_row: usize, first_column: usize) -> Self {
        // SAFETY: the caller's promise: there are as many values as columns, or rows.
        unsafe {
            match self {
                Self::Row(row) => Self::Row(row.add(first_column)),
                Self::Column(column) => Self::Column(column.add(first_row)),
                start => start,
            }
        }
    }
}

// SAFETY: only pointers; the tensors are borrowed until all parts are done, and the threads' parts of `into` do not overlap.
unsafe impl Send for Product {}
// SAFETY: as for Send.
unsafe impl Sync for Product {}

impl Product {
    /// Transposed if necessary so that the rows of a bf16 product are contiguous.
    ///
    /// # Panics
    /// Panics if shapes, kinds or strides do not match.
    pub fn new(into: Matrix, a: Matrix, b: Matrix, start: Start) -> Self {
        let [m, n] = into.sizes;
        assert!(into.is_apart_from_itself(), "a product has overlapping elements");
        let fits = a.sizes[0] == m && b.sizes == [a.sizes[1], n];
        assert!(fits, "cannot multiply shapes {:?} and {:?} into {:?}", a.sizes, b.sizes, into.sizes);
        let fits = a.kind == b.kind && [a.kind, Kind::Float].contains(&into.kind) && kind_has_gemm(a.kind);
        assert!(fits, "cannot multiply {:?} and {:?} into {:?}", a.kind, b.kind, into.kind);
        let product = Self { into, a, b, start };
        #[cfg(target_arch = "x86_64")]
        if a.kind == Kind::BFloat16 && into.strides[1] != 1 && m * n > 1 {
            assert_eq!(into.strides[0], 1, "a bf16 product must be contiguous along one dimension");
            return product.transposed();
        }
        product
    }

    /// The address range of the product.
    pub fn addresses(&self) -> AddressRange {
        self.into.addresses()
    }

    /// The cost in multiplications.
    fn work(&self) -> usize {
        let [m, n] = self.into.sizes;
        m.max(WORK_OF_READING) * n.max(WORK_OF_READING) * self.a.sizes[1]
    }

    /// Computes a part of the product on this thread.
    ///
    /// # Safety
    /// The matrices are valid, the addend has an element for each column, or each row, and nothing else reads or writes
    /// the part.
    pub unsafe fn part(&self, Part { rows, columns }: Part) {
        #[cfg(target_arch = "x86_64")]
        if bf16::is_best() {
            let Self { into, a, b, start } = *self;
            let size = (rows.1, columns.1, a.sizes[1]);
            let of_neighbours = into.strides[1] == 1 && a.strides[1] == 1;
            let kernel = if of_neighbours { few::kernel_for(rows.1, b) } else { None };
            // SAFETY: the caller's promise.
            unsafe {
                let (target, start) = (into.target(rows.0, columns.0), start.from(rows.0, columns.0));
                let few = a.lines(rows.0, 0);
                match (kernel, a.kind) {
                    (Some(few::FewRowsKernel::Dots), kind) => {
                        let lines = (few, b.transposed().lines(columns.0, 0));
                        return match kind {
                            Kind::BFloat16 => few::dots::<true>(target, lines, size, start),
                            _ => few::dots::<false>(target, lines, size, start),
                        };
                    }
                    (Some(few::FewRowsKernel::Mixtures), kind) => {
                        let lines = (few, b.lines(0, columns.0));
                        return match kind {
                            Kind::BFloat16 => few::mixtures::<true>(target, lines, size, start),
                            _ => few::mixtures::<false>(target, lines, size, start),
                        };
                    }
                    (None, Kind::BFloat16) => {
                        let (a, b) = (a.factor(rows.0, 0), b.factor(0, columns.0));
                        return bf16::multiply(target, a, b, size, start);
                    }
                    (None, _) => {}
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.part_of_f32(rows, columns) }
    }

    /// # Safety
    /// As for [`Self::part`].
    unsafe fn part_of_f32(&self, rows: (usize, usize), columns: (usize, usize)) {
        let Self { into, a, b, start } = *self;
        assert_eq!(a.kind, Kind::Float, "this processor does not support bf16 products");
        // SAFETY: the caller's promise.
        unsafe {
            if let Start::Row(numbers) = start {
                for row in rows.0..rows.0 + rows.1 {
                    for column in columns.0..columns.0 + columns.1 {
                        *into.at(row, column) = *numbers.add(column);
                    }
                }
            }
            gemm::gemm(
                rows.1,
                columns.1,
                a.sizes[1],
                into.at::<f32>(rows.0, columns.0),
                into.strides[1],
                into.strides[0],
                !matches!(start, Start::Zero),
                a.at::<f32>(rows.0, 0).cast_const(),
                a.strides[1],
                a.strides[0],
                b.at::<f32>(0, columns.0).cast_const(),
                b.strides[1],
                b.strides[0],
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn transposed(&self) -> Self {
        let start = match self.start {
            Start::Row(row) => Start::Column(row),
            Start::Column(column) => Start::Row(column),
            start => start,
        };
        let [into, a, b] = [self.into, self.b, self.a].map(Matrix::transposed);
        Self { into, a, b, start }
    }
}

/// Computes all products side by side: every thread does a part of each.
///
/// # Safety
/// The matrices are valid, each addend has an element for each column, or each row, and nothing else reads or writes
/// the products until this returns: neither as their factors nor elsewhere.
pub unsafe fn compute_each(products: &[Product]) {
    let threads = (products.iter().map(Product::work).sum::<usize>() / MIN_WORK).clamp(1, num_threads());
    let parts: Vec<Vec<Part>> = products.iter().map(|product| parts(product.into.sizes, threads)).collect();
    // SAFETY: the caller's promise; shapes were checked, so every element that a product touches is in its matrix; the
    // parts' rows and columns of `into` do not overlap.
    parallel_each((0..threads).collect(), |thread: usize| unsafe {
        for (product, parts) in products.iter().zip(&parts) {
            product.part(parts[thread]);
        }
    });
}

/// A thread's part of a product: first row and column, and how many of each.
#[derive(Clone, Copy)]
pub struct Part {
    pub rows: (usize, usize),
    pub columns: (usize, usize),
}

/// Splits a product into a grid with one part per thread, as square as the number of threads allows.
pub fn parts([m, n]: [usize; 2], threads: usize) -> Vec<Part> {
    // Each thread reads its rows of `a` and its columns of `b`: the fewer, the better.
    let read = |down: usize| m.div_ceil(down) + n.div_ceil(threads / down);
    let down = (1..=threads)
        .filter(|down| threads.is_multiple_of(*down))
        .min_by_key(|&down| read(down))
        .unwrap_or(1);
    let across = threads / down;
    let cut = |len: usize, count: usize, i: usize| {
        let start = i * len / count;
        (start, (i + 1) * len / count - start)
    };
    (0..threads)
        .map(|i| Part { rows: cut(m, down, i / across), columns: cut(n, across, i % across) })
        .collect()
}

/// [`super::int8_gemm`] on all threads.
///
/// # Safety
/// As for [`compute_each`], for contiguous `x [m, k]` and `matrix [n, k + SCALE_BYTES]`, on a processor that
/// [`super::has_int8_gemm`].
#[cfg(target_arch = "x86_64")]
pub unsafe fn int8_product(
    into: Matrix,
    x: *const f32,
    matrix: *const u8,
    (m, n, k): (usize, usize, usize),
    start: Start,
) {
    /// State that the threads share.
    #[derive(Clone, Copy)]
    struct Shared(Matrix, *const f32, *const u8, Start);
    // SAFETY: only pointers, which are valid until all parts are done, and the threads' columns do not overlap.
    unsafe impl Sync for Shared {}
    let shared = Shared(into, x, matrix, start);
    let bytes_of_row = k + super::SCALE_BYTES;
    parallel_each(shares(n, MIN_WORK / (WORK_OF_READING * k).max(1)), |share| {
        // Captures the whole struct, since its pointers alone are not Sync.
        let Shared(into, x, matrix, start) = { &shared };
        let x = few::Lines { data: x.cast(), stride: (k * 4) as isize };
        let columns = matrix.wrapping_add(share.start * bytes_of_row);
        let columns = few::Lines { data: columns, stride: bytes_of_row as isize };
        // SAFETY: the caller's promise; the share's rows of `matrix` and columns of `into` exist, and no other thread
        // uses them.
        unsafe {
            let (into, start) = (into.target(0, share.start), start.from(0, share.start));
            few::int8_dots(into, (x, columns), (m, share.len(), k), start);
        }
    });
}
