//! RMSNorm, fused with the residual addition before it (forward) or after it (backward).
//!
//! Shapes: N rows, D elements per row.

use half::bf16;
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

use super::Scalar;
use super::partition::{Rows, sum};
use oss_torch::{Slices, parallel_each};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Normalizes `x [N, D]`, or the sum of `x` and `added` rounded to their kind, by its root mean square, and multiplies
/// by `weight` (f32 `[D]`). Returns the sum, the normalized rows and the inverse root mean squares (f32 `[N, 1]`).
pub fn rms_norm(x: &Tensor, added: Option<&Tensor>, weight: &Tensor, eps: f64) -> (Tensor, Tensor, Tensor) {
    match x.kind() {
        Kind::BFloat16 => forward::<bf16>(x, added, weight, eps as f32),
        _ => forward::<f32>(x, added, weight, eps as f32),
    }
}

/// Returns the gradient of the sum, given that of the normalized rows and, if the sum also bypasses the norm, that of
/// the bypass. Adds the gradient of the weight to `grad_weight` (f32 `[D]`).
///
/// # Panics
/// Panics if `grad_weight` shares memory with another tensor.
pub fn rms_norm_backward(
    grad: &Tensor,
    beside: Option<&Tensor>,
    x: &Tensor,
    weight: &Tensor,
    inverse_rms: &Tensor,
    grad_weight: &mut Tensor,
) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => backward::<bf16>(grad, beside, x, weight, inverse_rms, grad_weight),
        _ => backward::<f32>(grad, beside, x, weight, inverse_rms, grad_weight),
    }
}

fn forward<T: Scalar>(
    x: &Tensor,
    added: Option<&Tensor>,
    weight: &Tensor,
    eps: f32,
) -> (Tensor, Tensor, Tensor) {
    let width = weight.numel();
    let rows = Rows::new(x.numel() / width, width);
    let mut total = added.map(|_| x.empty_like());
    let (mut y, mut inverse) = (x.empty_like(), Tensor::empty([x.size()[0], 1], F32));
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let (source, weight) = (slices.of::<T>(x), slices.of::<f32>(weight));
    let ys = rows.cut_mut(slices.of_mut::<T>(&mut y), width);
    let ys = ys.zip(rows.cut_mut(slices.of_mut::<f32>(&mut inverse), 1));
    match (&mut total, added) {
        (Some(total), Some(added)) => {
            let sources = rows.cut(source, width).zip(rows.cut(slices.of::<T>(added), width));
            let totals = rows.cut_mut(slices.of_mut::<T>(total), width);
            parallel_each(sources.zip(totals).zip(ys).collect(), |(((x, added), total), (y, inverse))| {
                add(x, added, total);
                normalize(total, weight, eps, y, inverse);
            });
        }
        _ => parallel_each(rows.cut(source, width).zip(ys).collect(), |(x, (y, inverse))| {
            normalize(x, weight, eps, y, inverse);
        }),
    }
    (total.unwrap_or_else(|| x.shallow_clone()), y, inverse)
}

fn backward<T: Scalar>(
    grad: &Tensor,
    beside: Option<&Tensor>,
    x: &Tensor,
    weight: &Tensor,
    inverse_rms: &Tensor,
    grad_weight: &mut Tensor,
) -> Tensor {
    let width = weight.numel();
    let rows = Rows::new(x.numel() / width, width);
    let mut grad_x = match beside {
        Some(beside) => beside.copy(),
        None => x.zeros_like(),
    };
    let mut grad_weights = vec![vec![0.0; width]; rows.parts()];
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let (grad, x, weight) = (slices.of::<T>(grad), slices.of::<T>(x), slices.of::<f32>(weight));
    let (inverse, total) = (slices.of::<f32>(inverse_rms), slices.of_mut::<f32>(grad_weight));
    let sources = rows.cut(grad, width).zip(rows.cut(x, width)).zip(rows.cut(inverse, 1));
    let targets = rows.cut_mut(slices.of_mut::<T>(&mut grad_x), width).zip(&mut grad_weights);
    parallel_each(sources.zip(targets).collect(), |(((grad, x), inverse), (grad_x, grad_weight))| {
        differentiate(grad, x, inverse, weight, grad_x, grad_weight);
    });
    for part in grad_weights {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    grad_x
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn add<T: Scalar>(x: &[T], added: &[T], total: &mut [T]) {
    for ((total, x), added) in total.iter_mut().zip(x).zip(added) {
        *total = T::narrow(x.wide() + added.wide());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn normalize<T: Scalar>(x: &[T], weight: &[f32], eps: f32, y: &mut [T], inverse: &mut [f32]) {
    let width = weight.len();
    for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse) {
        let squares = sum(width, |i| x[i].wide() * x[i].wide());
        *inverse = 1.0 / (squares / width as f32 + eps).sqrt();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = T::narrow(x.wide() * *inverse * weight);
        }
    }
}

/// On entry, `grad_x` holds the gradient that bypasses the norm.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn differentiate<T: Scalar>(
    grad: &[T],
    x: &[T],
    inverse: &[f32],
    weight: &[f32],
    grad_x: &mut [T],
    grad_weight: &mut [f32],
) {
    let width = weight.len();
    let sources = grad.chunks_exact(width).zip(x.chunks_exact(width)).zip(inverse);
    for (((grad, x), inverse), grad_x) in sources.zip(grad_x.chunks_exact_mut(width)) {
        let projection = sum(width, |i| grad[i].wide() * weight[i] * (x[i].wide() * inverse)) / width as f32;
        for i in 0..width {
            let (gradient, normalized) = (grad[i].wide(), x[i].wide() * inverse);
            grad_weight[i] += gradient * normalized;
            let through = (gradient * weight[i] - normalized * projection) * inverse;
            grad_x[i] = T::narrow(grad_x[i].wide() + through);
        }
    }
}
