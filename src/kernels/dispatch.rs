//! Rows of tokens sent to experts and gathered again.
//!
//! N tokens, A active experts, R >= N*A rows sorted by expert, D elements a row.

use half::bf16;
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

use super::Number;
use super::rows::{Rows, sum};
use crate::torch::{i64_slice, parallel_each, slice, slice_mut};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// `base [N, D]` plus each token's rows, weighted: `rows [R, D]`, of which those of a token are `place` (i64 `[N*A]`), with
/// `weights` (f32 `[N, A]`; 1 where there are none).
pub fn combine(
    base: Option<&Tensor>,
    rows: &Tensor,
    place: &Tensor,
    weights: Option<&Tensor>,
    active: i64,
) -> Tensor {
    match rows.kind() {
        Kind::BFloat16 => combine_rows::<bf16>(base, rows, place, weights, active as usize),
        _ => combine_rows::<f32>(base, rows, place, weights, active as usize),
    }
}

/// What [`combine`] sends back: the gradient of each row `[R, D]`, and that of each row's weight, f32 `[R]`, from `grad [N, D]`.
/// A row belongs to the token `token` (i64 `[R]`) and has the weight `weights[order]` (f32 `[N, A]`, i64 `[R]`).
pub fn combine_backward(
    grad: &Tensor,
    rows: &Tensor,
    token: &Tensor,
    order: &Tensor,
    weights: &Tensor,
) -> (Tensor, Tensor) {
    match rows.kind() {
        Kind::BFloat16 => separate_rows::<bf16>(grad, rows, token, order, weights),
        _ => separate_rows::<f32>(grad, rows, token, order, weights),
    }
}

fn combine_rows<T: Number>(
    base: Option<&Tensor>,
    rows: &Tensor,
    place: &Tensor,
    weights: Option<&Tensor>,
    active: usize,
) -> Tensor {
    let width = rows.size()[1] as usize;
    let place = i64_slice(place);
    let tokens = place.len() / active;
    let ones = vec![1.0; place.len()];
    let weights = weights.map_or(ones.as_slice(), slice::<f32>);
    let mut y = match base {
        Some(base) => base.copy(),
        None => Tensor::zeros([tokens as i64, width as i64], (rows.kind(), Device::Cpu)),
    };
    let source = slice::<T>(rows);
    let parts = Rows::new(tokens, active * width);
    let choices = parts.cut(place, active).zip(parts.cut(weights, active));
    let tasks = choices.zip(parts.cut_mut(slice_mut::<T>(&mut y), width)).collect();
    parallel_each(tasks, |((place, weights), y)| add_choices(source, place, weights, active, width, y));
    y
}

fn separate_rows<T: Number>(
    grad: &Tensor,
    rows: &Tensor,
    token: &Tensor,
    order: &Tensor,
    weights: &Tensor,
) -> (Tensor, Tensor) {
    let (count, width) = (rows.size()[0], rows.size()[1] as usize);
    let (mut grad_rows, mut grad_weights) = (rows.empty_like(), Tensor::empty([count], F32));
    let (grad, weights) = (slice::<T>(grad), slice::<f32>(weights));
    let parts = Rows::new(count as usize, width);
    let ids = parts.cut(i64_slice(token), 1).zip(parts.cut(i64_slice(order), 1));
    let sources = ids.zip(parts.cut(slice::<T>(rows), width));
    let targets = parts.cut_mut(slice_mut::<T>(&mut grad_rows), width);
    let tasks = sources.zip(targets.zip(parts.cut_mut(slice_mut::<f32>(&mut grad_weights), 1))).collect();
    parallel_each(tasks, |(((token, order), rows), (grad_rows, grad_weights))| {
        let targets = grad_rows.chunks_exact_mut(width).zip(grad_weights);
        for (((token, order), row), (grad_row, grad_weight)) in
            token.iter().zip(order).zip(rows.chunks_exact(width)).zip(targets)
        {
            let at = *token as usize * width;
            *grad_weight = separate(&grad[at..at + width], row, weights[*order as usize], grad_row);
        }
    });
    (grad_rows, grad_weights)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn add_choices<T: Number>(
    rows: &[T],
    place: &[i64],
    weights: &[f32],
    active: usize,
    width: usize,
    y: &mut [T],
) {
    let mut total = vec![0.0; width];
    let choices = place.chunks_exact(active).zip(weights.chunks_exact(active));
    for ((place, weights), y) in choices.zip(y.chunks_exact_mut(width)) {
        for (total, y) in total.iter_mut().zip(&*y) {
            *total = y.wide();
        }
        for (place, weight) in place.iter().zip(weights) {
            let row = &rows[*place as usize * width..][..width];
            for (total, x) in total.iter_mut().zip(row) {
                *total += weight * x.wide();
            }
        }
        for (y, total) in y.iter_mut().zip(&total) {
            *y = T::narrow(*total);
        }
    }
}

/// Writes the gradient of one row and returns that of its weight.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn separate<T: Number>(grad: &[T], row: &[T], weight: f32, grad_row: &mut [T]) -> f32 {
    for (out, grad) in grad_row.iter_mut().zip(grad) {
        *out = T::narrow(weight * grad.wide());
    }
    sum(row.len(), |i| grad[i].wide() * row[i].wide())
}
