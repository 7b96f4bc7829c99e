//! gpt-oss's clamped SwiGLU over interleaved columns: `(up + 1) * gate * sigmoid(1.702 * gate)`, where `gate` is
//! clamped from above and `up` on both sides.
//!
//! Shapes: R rows, F output elements per row.

use half::bf16;
use multiversion::multiversion;
use tch::{Kind, Tensor};

use super::Scalar;
use super::exp::exp;
use super::partition::{Rows, sum};
use oss_torch::{Slices, parallel_each};

/// Slope of the gate's sigmoid.
const ALPHA: f32 = 1.702;

/// Maps `gate_up [R, 2F]` to `[R, F]`.
pub fn swiglu(gate_up: &Tensor, limit: f64) -> Tensor {
    match gate_up.kind() {
        Kind::BFloat16 => forward::<bf16>(gate_up, limit as f32),
        _ => forward::<f32>(gate_up, limit as f32),
    }
}

/// Results of [`swiglu_backward`].
#[derive(Debug)]
pub struct SwigluBackward {
    /// The recomputed output rows, multiplied by their weights: `[R, F]`.
    pub weighted: Tensor,
    /// Gradient of `gate_up`: `[R, 2F]`.
    pub grad_gate_up: Tensor,
    /// Gradient of the weights, f32 `[R]`: the dot product of each unweighted row with the gradient of its weighted
    /// row.
    pub grad_weight: Tensor,
}

/// Backward pass for output rows that are multiplied by `weight` (f32 `[R]`); `grad [R, F]` is the gradient of the
/// weighted rows.
pub fn swiglu_backward(grad: &Tensor, gate_up: &Tensor, weight: &Tensor, limit: f64) -> SwigluBackward {
    match gate_up.kind() {
        Kind::BFloat16 => backward::<bf16>(grad, gate_up, weight, limit as f32),
        _ => backward::<f32>(grad, gate_up, weight, limit as f32),
    }
}

fn forward<T: Scalar>(gate_up: &Tensor, limit: f32) -> Tensor {
    let (count, width) = (gate_up.size()[0], gate_up.size()[1] / 2);
    let mut y = Tensor::empty([count, width], (gate_up.kind(), gate_up.device()));
    let width = width as usize;
    let rows = Rows::new(count as usize, width);
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let sources = rows.cut(slices.of::<T>(gate_up), 2 * width);
    let tasks = sources.zip(rows.cut_mut(slices.of_mut::<T>(&mut y), width)).collect();
    parallel_each(tasks, |(gate_up, y)| activate(gate_up, limit, y));
    y
}

fn backward<T: Scalar>(grad: &Tensor, gate_up: &Tensor, weight: &Tensor, limit: f32) -> SwigluBackward {
    let (count, width) = (gate_up.size()[0] as usize, gate_up.size()[1] as usize / 2);
    let (mut weighted, mut grad_gate_up) = (grad.empty_like(), gate_up.empty_like());
    let mut grad_weight = weight.empty_like();
    let rows = Rows::new(count, width);
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let sources = rows.cut(slices.of::<T>(grad), width).zip(rows.cut(slices.of::<T>(gate_up), 2 * width));
    let sources = sources.zip(rows.cut(slices.of::<f32>(weight), 1));
    let targets = rows.cut_mut(slices.of_mut::<T>(&mut grad_gate_up), 2 * width);
    let targets = targets.zip(rows.cut_mut(slices.of_mut::<T>(&mut weighted), width));
    let targets = targets.zip(rows.cut_mut(slices.of_mut::<f32>(&mut grad_weight), 1));
    parallel_each(sources.zip(targets).collect(), |(((grad, gate_up), weight), ((out, weighted), dots))| {
        let rows = grad.chunks_exact(width).zip(gate_up.chunks_exact(2 * width)).zip(weight);
        let targets = out.chunks_exact_mut(2 * width).zip(weighted.chunks_exact_mut(width)).zip(dots);
        let mut products = vec![0.0; width];
        for (((grad, gate_up), weight), ((out, weighted), dot)) in rows.zip(targets) {
            differentiate((grad, gate_up), *weight, limit, (out, weighted, &mut products));
            *dot = sum(width, |i| products[i]);
        }
    });
    SwigluBackward { weighted, grad_gate_up, grad_weight }
}

/// NaN stays NaN, as in libtorch's clamp.
#[inline(always)]
fn clamp_above(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn activate<T: Scalar>(gate_up: &[T], limit: f32, y: &mut [T]) {
    for (pair, y) in gate_up.chunks_exact(2).zip(y) {
        let gate = clamp_above(pair[0].wide(), limit);
        let up = -clamp_above(-clamp_above(pair[1].wide(), limit), limit);
        *y = T::narrow((up + 1.0) * (gate * sigmoid(ALPHA * gate)));
    }
}

/// Computes one row; `products` holds its elements times their gradients.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn differentiate<T: Scalar>(
    (grad, gate_up): (&[T], &[T]),
    weight: f32,
    limit: f32,
    (out, weighted, products): (&mut [T], &mut [T], &mut [f32]),
) {
    let targets = out.chunks_exact_mut(2).zip(weighted).zip(products);
    for ((pair, grad), ((out, weighted), product)) in gate_up.chunks_exact(2).zip(grad).zip(targets) {
        let (raw_gate, raw_up, grad) = (pair[0].wide(), pair[1].wide(), grad.wide());
        let gate = clamp_above(raw_gate, limit);
        let up = -clamp_above(-clamp_above(raw_up, limit), limit) + 1.0;
        let sigmoid = sigmoid(ALPHA * gate);
        let glu = gate * sigmoid;
        let slope = sigmoid + ALPHA * glu * (1.0 - sigmoid);
        let made = up * glu;
        *product = grad * made;
        *weighted = T::narrow(weight * made);
        let grad = weight * grad;
        out[0] = T::narrow(if raw_gate > limit { 0.0 } else { grad * up * slope });
        out[1] = T::narrow(if raw_up > limit || raw_up < -limit { 0.0 } else { grad * glu });
    }
}
