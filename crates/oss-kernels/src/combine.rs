//! Combines the outputs of a token's experts.
//!
//! Shapes: N tokens, A active experts, R = N*A rows sorted by expert, D elements per row.

use half::bf16;
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

use super::Scalar;
use super::partition::Rows;
use oss_torch::{Slices, parallel_each};

/// Adds to `base [N, D]` the weighted sum of each token's rows. `place` (i64 `[N*A]`) gives the indices of a token's
/// rows in `rows [R, D]`; without `weights` (f32 `[N, A]`), all weights are 1.
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

fn combine_rows<T: Scalar>(
    base: Option<&Tensor>,
    rows: &Tensor,
    place: &Tensor,
    weights: Option<&Tensor>,
    active: usize,
) -> Tensor {
    let width = rows.size()[1] as usize;
    let tokens = place.numel() / active;
    let ones = vec![1.0; place.numel()];
    let mut y = match base {
        Some(base) => base.copy(),
        None => Tensor::zeros([tokens as i64, width as i64], (rows.kind(), Device::Cpu)),
    };
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let (place, source) = (slices.of::<i64>(place), slices.of::<T>(rows));
    let weights = weights.map_or(ones.as_slice(), |weights| slices.of::<f32>(weights));
    let parts = Rows::new(tokens, active * width);
    let choices = parts.cut(place, active).zip(parts.cut(weights, active));
    let tasks = choices.zip(parts.cut_mut(slices.of_mut::<T>(&mut y), width)).collect();
    parallel_each(tasks, |((place, weights), y)| add_choices(source, place, weights, active, width, y));
    y
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn add_choices<T: Scalar>(
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
