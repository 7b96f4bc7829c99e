//! Sum of squares, for computing norms.

use multiversion::multiversion;
use tch::Tensor;

use super::partition::{Rows, sum};
use oss_torch::{Slices, parallel_each};

/// Elements per partial sum in f32; the partial sums are added in f64.
const BLOCK: usize = 4096;

/// The sum of the squares of a flat f32 tensor on the CPU.
pub fn sum_of_squares(x: &Tensor) -> f64 {
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let x = slices.of::<f32>(x);
    let parts = Rows::new(x.len(), 1);
    let mut sums = vec![0.0; parts.parts()];
    parallel_each(parts.cut(x, 1).zip(&mut sums).collect(), |(x, sum)| *sum = squares(x));
    sums.iter().sum()
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn squares(x: &[f32]) -> f64 {
    x.chunks(BLOCK).map(|block| f64::from(sum(block.len(), |i| block[i] * block[i]))).sum()
}
