//! Products of a few rows with a matrix, as in decoding: each element of the matrix is read once, at memory bandwidth.
//!
//! Shapes: b rows.

use half::bf16;
use multiversion::multiversion;
use tch::{Kind, Tensor};

use super::Scalar;
use super::partition::Rows;
use oss_torch::{Slices, fetch_ahead, has_few_rows_gemm, parallel_each, shares};

/// Most rows for which this beats a matrix product.
pub const FEW: i64 = 4;

/// Number of parallel accumulators; more than needed to hide the latency of the vector units.
pub const LANES: usize = 64;

/// Prefetch distance in elements, further than the hardware prefetcher goes.
const PREFETCH_DISTANCE: usize = 4096;

/// Rows of the matrix that are read side by side.
const TOGETHER: usize = 4;

/// Elements of the matrix that justify another thread.
pub const MIN_ELEMENTS: usize = 1 << 15;

/// Whether there are few enough rows for this kernel, and `oss_torch` has no faster one that also reads the matrix only
/// once.
pub fn takes_few_rows(like: &Tensor, rows: i64) -> bool {
    super::supports(like) && (1..=FEW).contains(&rows) && !has_few_rows_gemm(like)
}

/// Whether [`few_rows_product`] supports these: contiguous rows, and a matrix contiguous in either order.
pub fn few_rows(x: &Tensor, matrix: &Tensor) -> bool {
    takes_few_rows(x, x.size()[0])
        && matrix.kind() == x.kind()
        && x.is_contiguous()
        && (matrix.is_contiguous() || matrix.transpose(0, 1).is_contiguous())
}

/// `into [b, out] = x [b, in] @ matrix [in, out]`, plus `bias` (f32 `[out]`), summed in f32; `into` is f32 or of the
/// kind of the factors.
///
/// # Panics
/// Panics if `into` shares memory with another tensor.
pub fn few_rows_product(into: &mut Tensor, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) {
    match x.kind() {
        Kind::BFloat16 => by_kind::<bf16>(into, x, matrix, bias),
        _ => by_kind::<f32>(into, x, matrix, bias),
    }
}

fn by_kind<T: Scalar>(into: &mut Tensor, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) {
    let (count, width) = (x.size()[0] as usize, x.size()[1] as usize);
    let out = matrix.size()[1] as usize;
    let turned = matrix.transpose(0, 1);
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let wide: Vec<f32> = slices.of::<T>(x).iter().map(|x| x.wide()).collect();
    let mut sums = match into.kind() {
        Kind::Float => Vec::new(),
        _ => vec![0.0; count * out],
    };
    let (y, narrowed) = match into.kind() {
        Kind::Float => (slices.of_mut::<f32>(into), None),
        _ => (sums.as_mut_slice(), Some(slices.of_mut::<T>(into))),
    };
    match bias.map(|bias| slices.of::<f32>(bias)) {
        Some(bias) => y.chunks_exact_mut(out).for_each(|row| row.copy_from_slice(bias)),
        None => y.fill(0.0),
    }
    let parts = shares(out, MIN_ELEMENTS.div_ceil(width.max(1)));
    // Each thread computes its columns of every row of the result.
    let tasks: Vec<_> = parts.iter().cloned().zip(columns_of(y, out, &parts)).collect();
    if turned.is_contiguous() {
        let columns = slices.of::<T>(&turned);
        parallel_each(tasks, |(share, mut y)| {
            dots(&wide, &columns[share.start * width..share.end * width], &mut y);
        });
    } else {
        let rows = slices.of::<T>(matrix);
        parallel_each(tasks, |(share, mut y)| {
            for (x, y) in wide.chunks_exact(width).zip(&mut y) {
                add_scaled(x, rows, share.start, y);
            }
        });
    }
    if let Some(into) = narrowed {
        let parts = Rows::new(count * out, 1);
        let tasks = parts.cut(&sums, 1).zip(parts.cut_mut(into, 1)).collect();
        parallel_each(tasks, |(sums, into)| narrow(sums, into));
    }
}

/// Splits every row of `y` at the parts of the columns.
pub fn columns_of<'a>(
    y: &'a mut [f32],
    width: usize,
    parts: &[std::ops::Range<usize>],
) -> Vec<Vec<&'a mut [f32]>> {
    let mut columns: Vec<Vec<&mut [f32]>> = parts.iter().map(|_| Vec::new()).collect();
    for mut row in y.chunks_exact_mut(width) {
        for (part, columns) in parts.iter().zip(&mut columns) {
            let (here, after) = row.split_at_mut(part.len());
            columns.push(here);
            row = after;
        }
    }
    columns
}

/// Adds to each row of `y` the dot products of `x`'s row with all columns.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn dots<T: Scalar>(x: &[f32], columns: &[T], y: &mut [&mut [f32]]) {
    let width = x.len() / y.len();
    let whole = width / LANES * LANES;
    for (index, column) in columns.chunks_exact(width).enumerate() {
        for (x, y) in x.chunks_exact(width).zip(&mut *y) {
            let mut lanes = [0.0; LANES];
            for (x, column) in x[..whole].chunks_exact(LANES).zip(column[..whole].chunks_exact(LANES)) {
                fetch_ahead(column, PREFETCH_DISTANCE);
                for lane in 0..LANES {
                    lanes[lane] += x[lane] * column[lane].wide();
                }
            }
            for i in whole..width {
                lanes[i - whole] += x[i] * column[i].wide();
            }
            y[index] += horizontal_sum(lanes);
        }
    }
}

/// Sums the lanes by adding halves, which stays in vector registers to the end.
#[inline(always)]
pub fn horizontal_sum(mut lanes: [f32; LANES]) -> f32 {
    let mut len = LANES / 2;
    while len > 0 {
        for lane in 0..len {
            lanes[lane] += lanes[lane + len];
        }
        len /= 2;
    }
    lanes[0]
}

/// Adds to `y` the rows of `matrix [in, out]` multiplied by the elements of `x`, in the columns from `first` on.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn add_scaled<T: Scalar>(x: &[f32], matrix: &[T], first: usize, y: &mut [f32]) {
    let out = matrix.len() / x.len();
    let len = y.len();
    let rows = |i: usize| &matrix[i * out + first..][..len];
    let whole = x.len() / TOGETHER * TOGETHER;
    for i in (0..whole).step_by(TOGETHER) {
        let [a, b, c, d] = [rows(i), rows(i + 1), rows(i + 2), rows(i + 3)];
        for row in [a, b, c, d] {
            fetch_ahead(row, TOGETHER * out);
        }
        for ((((y, a), b), c), d) in y.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *y += x[i] * a.wide() + x[i + 1] * b.wide() + x[i + 2] * c.wide() + x[i + 3] * d.wide();
        }
    }
    for i in whole..x.len() {
        for (y, w) in y.iter_mut().zip(&matrix[i * out + first..]) {
            *y += x[i] * w.wide();
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn narrow<T: Scalar>(wide: &[f32], narrow: &mut [T]) {
    for (narrow, wide) in narrow.iter_mut().zip(wide) {
        *narrow = T::narrow(*wide);
    }
}
