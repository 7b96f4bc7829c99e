//! Matrix products on the CPU that libtorch's libraries are slower at.
//!
//! libtorch leaves f32 to MKL, which on AMD's processors stays with AVX2 and half of the machine's speed; the crate `gemm` has
//! kernels for AVX-512. It leaves bf16 to oneDNN, which compiles a kernel for every new shape, allocates in every call and
//! rounds what is to be added to an f32 sum; no crate multiplies bf16, so [`bf16`] does. Both take any strides, and add to what
//! is there without a pass of its own.

#[cfg(target_arch = "x86_64")]
mod bf16;
mod block;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(test)]
mod tests;

pub use block::{Block, BlockElement, block_product};

use gemm::Parallelism;
use tch::{Device, Kind, Tensor};

use super::parallel::{num_threads, parallel_each, shares};

/// Multiplications that are worth a thread of their own.
const LEAST_WORK: usize = 1 << 18;

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Onto<'a> {
    /// Nothing: what was there is overwritten.
    Zero,
    /// What is there.
    Itself,
    /// This row, f32 `[N]`, in each row.
    Row(&'a Tensor),
}

/// Whether [`gemm()`] takes factors like this one: f32 on the CPU, and bf16 where [`has_bf16_gemm`].
pub fn has_gemm(like: &Tensor) -> bool {
    like.device() == Device::Cpu
        && match like.kind() {
            Kind::Float => true,
            Kind::BFloat16 => has_bf16_gemm(),
            _ => false,
        }
}

/// Whether this processor is one for which [`gemm()`] multiplies bf16.
pub fn has_bf16_gemm() -> bool {
    #[cfg(target_arch = "x86_64")]
    return bf16::is_best();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether [`gemm()`] reads the columns of few rows' products at the speed of the memory: `few [M, K]` and `columns [K, N]`, whose
/// numbers are neighbours along K.
pub fn has_few_rows_gemm(few: &Tensor, columns: &Tensor) -> bool {
    #[cfg(target_arch = "x86_64")]
    return has_gemm(few)
        && bf16::is_best()
        && few.size()[0] <= few::FEW as i64
        && few.stride()[1] == 1
        && columns.stride()[0] == 1;
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (few, columns);
        false
    }
}

/// `into = onto + a @ b`: CPU tensors `[M, N]`, `[M, K]`, `[K, N]`, all f32, or bf16 factors that [`has_gemm`] takes with a
/// product in bf16 or f32; sums are f32. Strides are free, but a product of bf16 has neighbours along one axis; `into` shares no
/// memory with the factors. Bit-identical for equal shapes, strides and numbers of threads.
///
/// # Panics
/// When shapes, kinds or strides are others.
pub fn gemm(into: &mut Tensor, a: &Tensor, b: &Tensor, onto: Onto<'_>) {
    let (sizes, a_sizes, b_sizes) = (into.size(), a.size(), b.size());
    let (m, n, k) = (sizes[0], sizes[1], a_sizes[1]);
    assert!(a_sizes[0] == m && b_sizes == [k, n], "a product of {a_sizes:?} and {b_sizes:?} in {sizes:?}");
    if let Onto::Row(row) = onto {
        assert_eq!(
            (row.kind(), row.size(), row.is_contiguous()),
            (Kind::Float, vec![n], true),
            "a row of f32"
        );
    }
    let start = match onto {
        Onto::Zero => Start::Zero,
        Onto::Itself => Start::Itself,
        Onto::Row(row) => Start::Row(row.data_ptr().cast_const().cast()),
    };
    let [into_kind, kind] = [into.kind(), a.kind()];
    let product =
        Product { into: Matrix::of(into), a: Matrix::of(a), b: Matrix::of(b), k: k as usize, start };
    let (m, n) = (m as usize, n as usize);
    #[cfg(target_arch = "x86_64")]
    if has_few_rows_gemm(a, b) && product.into.column_stride == 1 {
        return product.few_rows((m, n), into_kind);
    }
    match kind {
        #[cfg(target_arch = "x86_64")]
        Kind::BFloat16 => product.bf16((m, n), into_kind),
        _ => {
            if let Onto::Row(row) = onto {
                into.copy_(&row.expand_as(&*into));
            }
            product.f32((m, n));
        }
    }
}

/// A matrix in memory: what a thread needs of a tensor. Strides are in elements.
#[derive(Clone, Copy)]
struct Matrix {
    data: *mut u8,
    kind: Kind,
    row_stride: isize,
    column_stride: isize,
}

impl Matrix {
    fn of(tensor: &Tensor) -> Self {
        assert_eq!(tensor.device(), Device::Cpu, "a product on the CPU");
        let strides = tensor.stride();
        assert_eq!(strides.len(), 2, "a product of matrices");
        let data = tensor.data_ptr().cast();
        Self {
            data,
            kind: tensor.kind(),
            row_stride: strides[0] as isize,
            column_stride: strides[1] as isize,
        }
    }

    fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// What lies right and below of an element.
    ///
    /// # Safety
    /// The element lies in the matrix.
    #[cfg(target_arch = "x86_64")]
    unsafe fn factor(self, row: usize, column: usize) -> bf16::Factor {
        // SAFETY: the caller's promise.
        let data = unsafe { self.at::<u16>(row, column) };
        bf16::Factor { data, row_stride: self.row_stride, column_stride: self.column_stride }
    }

    /// What lies right and below of an element, to be written.
    ///
    /// # Safety
    /// The element lies in the matrix, whose columns are neighbours.
    #[cfg(target_arch = "x86_64")]
    unsafe fn target(self, kind: Kind, row: usize, column: usize) -> bf16::Target {
        let row_stride = self.row_stride;
        // SAFETY: the caller's promise.
        unsafe {
            match kind {
                Kind::BFloat16 => bf16::Target::Bf16 { data: self.at(row, column), row_stride },
                Kind::Float => bf16::Target::F32 { data: self.at(row, column), row_stride },
                kind => panic!("a product in {kind:?}"),
            }
        }
    }

    /// # Safety
    /// The element lies in the matrix.
    unsafe fn at<T>(self, row: usize, column: usize) -> *mut T {
        let offset = row as isize * self.row_stride + column as isize * self.column_stride;
        // SAFETY: the caller's promise.
        unsafe { self.data.cast::<T>().offset(offset) }
    }
}

/// A product of matrices whose shapes fit.
#[derive(Clone, Copy)]
struct Product {
    into: Matrix,
    a: Matrix,
    b: Matrix,
    k: usize,
    start: Start,
}

/// [`Onto`] for threads.
#[derive(Clone, Copy)]
enum Start {
    Zero,
    Itself,
    /// Numbers by column.
    Row(*const f32),
    /// Numbers by row.
    Column(*const f32),
}

impl Start {
    /// What is added right and below of an element.
    ///
    /// # Safety
    /// The element lies in the product.
    #[cfg(target_arch = "x86_64")]
    unsafe fn from(self, first_row: usize, first_column: usize) -> Self {
        // SAFETY: the caller's promise: numbers there are as many as columns, or rows.
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
    fn f32(&self, (m, n): (usize, usize)) {
        for matrix in [self.into, self.a, self.b] {
            assert_eq!(matrix.kind, Kind::Float, "a product in f32");
        }
        let adds = !matches!(self.start, Start::Zero);
        parallel_each(parts(m, n, self.k), |Part { rows, columns }| {
            let Self { into, a, b, k, .. } = *self;
            // SAFETY: the three tensors are borrowed until every part is done; shapes were checked, so every element that the
            // product touches lies in its tensor; the parts' rows and columns of `into` do not overlap.
            unsafe {
                gemm::gemm(
                    rows.1,
                    columns.1,
                    k,
                    into.at::<f32>(rows.0, columns.0),
                    into.column_stride,
                    into.row_stride,
                    adds,
                    a.at::<f32>(rows.0, 0).cast_const(),
                    a.column_stride,
                    a.row_stride,
                    b.at::<f32>(0, columns.0).cast_const(),
                    b.column_stride,
                    b.row_stride,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        });
    }

    /// [`few::multiply`] of parts of the columns.
    #[cfg(target_arch = "x86_64")]
    fn few_rows(&self, (m, n): (usize, usize), into_kind: Kind) {
        let kind = self.a.kind;
        assert_eq!(self.b.kind, kind, "factors of one kind");
        let bytes = kind.elt_size_in_bytes() as isize;
        let lines = |data: *mut u8, stride: isize| few::Lines { data, stride: stride * bytes };
        parallel_each(shares(n, LEAST_WORK / (m * self.k).max(1)), |share| {
            let Self { into, a, b, k, start } = *self;
            let size = (m, share.len(), k);
            // SAFETY: as in `f32`; the parts have columns of their own.
            unsafe {
                let into = into.target(into_kind, 0, share.start);
                let start = start.from(0, share.start);
                let column = b.data.offset(share.start as isize * b.column_stride * bytes);
                let (rows, columns) = (lines(a.data, a.row_stride), lines(column, b.column_stride));
                match kind {
                    Kind::BFloat16 => few::multiply::<true>(into, rows, columns, size, start),
                    _ => few::multiply::<false>(into, rows, columns, size, start),
                }
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    fn bf16(&self, (m, n): (usize, usize), into_kind: Kind) {
        assert!(bf16::is_best(), "a product of bf16 on a processor that has none");
        assert_eq!([self.a, self.b].map(|matrix| matrix.kind), [Kind::BFloat16; 2], "a product of bf16");
        if self.into.column_stride != 1 && m * n > 1 {
            assert_eq!(self.into.row_stride, 1, "a product with neighbours along one axis");
            return self.transposed().bf16((n, m), into_kind);
        }
        parallel_each(parts(m, n, self.k), |Part { rows, columns }| {
            let Self { into, a, b, k, start } = *self;
            // SAFETY: as in `f32`; what is added has an element for each column, or each row.
            unsafe {
                let into = into.target(into_kind, rows.0, columns.0);
                let start = start.from(rows.0, columns.0);
                let a = a.factor(rows.0, 0);
                bf16::multiply(into, a, b.factor(0, columns.0), (rows.1, columns.1, k), start);
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    fn transposed(&self) -> Self {
        let start = match self.start {
            Start::Row(row) => Start::Column(row),
            Start::Column(column) => Start::Row(column),
            start => start,
        };
        let [into, a, b] = [self.into, self.b, self.a].map(Matrix::transposed);
        Self { into, a, b, k: self.k, start }
    }
}

/// A part of the product for one thread: first and number of rows and columns.
struct Part {
    rows: (usize, usize),
    columns: (usize, usize),
}

/// The product cut into a grid of one part a thread, as square as the threads allow.
fn parts(m: usize, n: usize, k: usize) -> Vec<Part> {
    let threads = (m * n * k / LEAST_WORK).clamp(1, num_threads());
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
