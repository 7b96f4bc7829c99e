//! Matrix products on the CPU that libtorch's libraries are slower at.
//!
//! libtorch leaves f32 to MKL, which on AMD's processors stays with AVX2 and half of the machine's speed; the crate `gemm` has
//! kernels for AVX-512. It leaves bf16 to oneDNN, which compiles a kernel for every new shape, allocates in every call and
//! rounds what is to be added to an f32 sum; no crate multiplies bf16, so [`bf16`] does. Both take any strides, and add to what
//! is there without a pass of its own. Both pack their factors first, for which few rows are too few: [`few`].

#[cfg(target_arch = "x86_64")]
mod bf16;
mod block;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(test)]
mod tests;

pub use block::{Block, block_product};

use gemm::Parallelism;
use tch::{Device, Kind, Tensor};

use super::parallel::{num_threads, parallel_each};

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
    let kinds = [into.kind(), a.kind(), b.kind()];
    let fits = kinds[1] == kinds[2] && [kinds[1], Kind::Float].contains(&kinds[0]);
    assert!(fits && has_gemm(a), "a product of {:?} and {:?} in {:?}", kinds[1], kinds[2], kinds[0]);
    let start = match onto {
        Onto::Zero => Start::Zero,
        Onto::Itself => Start::Itself,
        Onto::Row(row) => Start::Row(row.data_ptr().cast_const().cast()),
    };
    let [into, a, b] = [&*into, a, b].map(Matrix::of);
    Product { into, a, b, k: k as usize, start }.compute((m as usize, n as usize));
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
    unsafe fn target(self, row: usize, column: usize) -> bf16::Target {
        let row_stride = self.row_stride;
        // SAFETY: the caller's promise.
        unsafe {
            match self.kind {
                Kind::BFloat16 => bf16::Target::Bf16 { data: self.at(row, column), row_stride },
                _ => bf16::Target::F32 { data: self.at(row, column), row_stride },
            }
        }
    }

    /// The rows from one on.
    ///
    /// # Safety
    /// The row lies in the matrix.
    #[cfg(target_arch = "x86_64")]
    unsafe fn lines(self, row: usize) -> few::Lines {
        let stride = self.row_stride * self.kind.elt_size_in_bytes() as isize;
        // SAFETY: the caller's promise.
        few::Lines { data: unsafe { self.data.offset(row as isize * stride) }, stride }
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
    /// All of it, `m` rows and `n` columns, on all threads.
    fn compute(&self, (m, n): (usize, usize)) {
        #[cfg(target_arch = "x86_64")]
        if self.a.kind == Kind::BFloat16 && self.into.column_stride != 1 && m * n > 1 {
            assert_eq!(self.into.row_stride, 1, "a product with neighbours along one axis");
            return self.transposed().compute((n, m));
        }
        // SAFETY: the three tensors are borrowed until every part is done; shapes were checked, so every element that the product
        // touches lies in its tensor; the parts' rows and columns of `into` do not overlap.
        parallel_each(parts(m, n, self.k), |part| unsafe { self.part(part) });
    }

    /// A part of it, on this thread.
    ///
    /// # Safety
    /// The matrices have these rows and columns, what is added has an element for each column, or each row, and nobody else
    /// reads or writes the part.
    unsafe fn part(&self, Part { rows, columns }: Part) {
        #[cfg(target_arch = "x86_64")]
        if bf16::is_best() {
            let Self { into, a, b, k, start } = *self;
            let size = (rows.1, columns.1, k);
            let is_few =
                rows.1 <= few::FEW && [into.column_stride, a.column_stride, b.row_stride] == [1, 1, 1];
            // SAFETY: the caller's promise.
            unsafe {
                let (target, start) = (into.target(rows.0, columns.0), start.from(rows.0, columns.0));
                let lines = || (a.lines(rows.0), b.transposed().lines(columns.0));
                match (a.kind, is_few) {
                    (Kind::BFloat16, true) => return few::multiply::<true>(target, lines(), size, start),
                    (_, true) => return few::multiply::<false>(target, lines(), size, start),
                    (Kind::BFloat16, false) => {
                        let (a, b) = (a.factor(rows.0, 0), b.factor(0, columns.0));
                        return bf16::multiply(target, a, b, size, start);
                    }
                    _ => {}
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.part_of_f32(rows, columns) }
    }

    /// # Safety
    /// As [`Self::part`].
    unsafe fn part_of_f32(&self, rows: (usize, usize), columns: (usize, usize)) {
        let Self { into, a, b, k, start } = *self;
        assert_eq!(a.kind, Kind::Float, "a product of bf16 on a processor that has none");
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
                k,
                into.at::<f32>(rows.0, columns.0),
                into.column_stride,
                into.row_stride,
                !matches!(start, Start::Zero),
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
