//! f32 matrix products on the CPU.
//!
//! libtorch leaves these to MKL, which on AMD's processors stays with AVX2 and half of the machine's speed. The crate `gemm`
//! has kernels for AVX-512, takes any strides and adds to what is there without a pass of its own.

use gemm::Parallelism;
use tch::{Device, Kind, Tensor};

use super::parallel::{num_threads, parallel_each};

/// Multiplications that are worth a thread of their own.
const LEAST_WORK: usize = 1 << 18;

/// A matrix in memory: what a thread needs of a tensor.
#[derive(Clone, Copy)]
struct Matrix {
    data: *mut f32,
    row_stride: isize,
    column_stride: isize,
}

// SAFETY: only a pointer; whoever uses it on another thread keeps the tensor alive and the threads' parts apart (`gemm` below).
unsafe impl Send for Matrix {}
// SAFETY: as for Send.
unsafe impl Sync for Matrix {}

impl Matrix {
    fn of(tensor: &Tensor) -> Self {
        assert_eq!(tensor.device(), Device::Cpu, "a product on the CPU");
        assert_eq!(tensor.kind(), Kind::Float, "a product in f32");
        let strides = tensor.stride();
        assert_eq!(strides.len(), 2, "a product of matrices");
        Self {
            data: tensor.data_ptr().cast(),
            row_stride: strides[0] as isize,
            column_stride: strides[1] as isize,
        }
    }
}

/// A part of the product for one thread.
struct Part {
    rows: (usize, usize),
    columns: (usize, usize),
}

/// `into = a @ b`, or `into += a @ b` with `adds`: f32 CPU tensors `[M, N]`, `[M, K]`, `[K, N]` of any strides; `into` shares no
/// memory with the factors. Bit-identical for equal shapes, strides and numbers of threads.
///
/// # Panics
/// When shapes do not fit, or a tensor is not an f32 matrix on the CPU.
pub fn gemm(into: &Tensor, a: &Tensor, b: &Tensor, adds: bool) {
    let (target, left, right) = (Matrix::of(into), Matrix::of(a), Matrix::of(b));
    let (sizes, a_sizes, b_sizes) = (into.size(), a.size(), b.size());
    let (m, n, k) = (sizes[0], sizes[1], a_sizes[1]);
    assert!(a_sizes[0] == m && b_sizes == [k, n], "a product of {a_sizes:?} and {b_sizes:?} in {sizes:?}");
    let (m, n, k) = (m as usize, n as usize, k as usize);
    parallel_each(parts(m, n, k), |Part { rows, columns }| {
        let (target, left, right) = (&target, &left, &right);
        let (row, column) = (rows.0 as isize, columns.0 as isize);
        // SAFETY: the three tensors are borrowed until every part is done; shapes were checked above, so every element that
        // the product touches lies in its tensor; the parts' rows and columns of `into` do not overlap.
        unsafe {
            gemm::gemm(
                rows.1 - rows.0,
                columns.1 - columns.0,
                k,
                target.data.offset(row * target.row_stride + column * target.column_stride),
                target.column_stride,
                target.row_stride,
                adds,
                left.data.offset(row * left.row_stride).cast_const(),
                left.column_stride,
                left.row_stride,
                right.data.offset(column * right.column_stride).cast_const(),
                right.column_stride,
                right.row_stride,
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
    let cut = |len: usize, count: usize, i: usize| (i * len / count, (i + 1) * len / count);
    (0..threads)
        .map(|i| Part { rows: cut(m, down, i / across), columns: cut(n, across, i % across) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a.to_kind(Kind::Double) - b).abs().max().double_value(&[])
    }

    #[test]
    fn any_strides_and_sizes() {
        tch::manual_seed(3);
        for (m, n, k) in
            [(1, 1, 1), (1, 300, 70), (65, 1, 33), (130, 257, 64), (300, 200, 1), (0, 5, 3), (4, 6, 0)]
        {
            for turned in 0..8 {
                let matrix = |rows, columns, turned: bool| match turned {
                    true => Tensor::randn([columns, rows], F32).transpose(0, 1),
                    false => Tensor::randn([rows, columns + 3], F32).narrow(1, 2, columns),
                };
                let (a, b) = (matrix(m, k, turned & 1 == 1), matrix(k, n, turned & 2 == 2));
                let into = matrix(m, n, turned & 4 == 4);
                let product = a.to_kind(Kind::Double).matmul(&b.to_kind(Kind::Double));
                let sum = into.to_kind(Kind::Double) + &product;
                gemm(&into, &a, &b, true);
                if into.numel() > 0 {
                    assert!(difference(&into, &sum) < 1e-4, "{m} {n} {k} {turned}");
                    gemm(&into, &a, &b, false);
                    assert!(difference(&into, &product) < 1e-4, "{m} {n} {k} {turned}");
                }
            }
        }
    }

    #[test]
    fn what_was_there_is_overwritten_though_it_is_not_a_number() {
        let into = Tensor::full([3, 3], f64::NAN, F32);
        gemm(&into, &Tensor::ones([3, 2], F32), &Tensor::ones([2, 3], F32), false);
        assert_eq!(into.sum(Kind::Float).double_value(&[]), 18.0);
    }

    #[test]
    fn parts_cover_the_product() {
        for (m, n) in [(1, 100_000), (100_000, 1), (777, 555)] {
            let covered: usize = parts(m, n, 64)
                .iter()
                .map(|part| (part.rows.1 - part.rows.0) * (part.columns.1 - part.columns.0))
                .sum();
            assert_eq!(covered, m * n);
        }
    }

    #[test]
    #[should_panic(expected = "a product of")]
    fn shapes_must_fit() {
        gemm(&Tensor::zeros([2, 2], F32), &Tensor::zeros([2, 3], F32), &Tensor::zeros([4, 2], F32), false);
    }
}
