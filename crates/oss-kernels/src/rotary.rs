//! Rotary position embedding of queries and keys; the two halves of a head form the rotated pairs.
//!
//! Shapes: B batch, T time, H heads, C head dim.

use half::bf16;
use multiversion::multiversion;
use tch::{Kind, Tensor};

use super::Scalar;
use super::partition::Rows;
use oss_torch::{Slices, parallel_each};

/// Rotates `x [B, T, H, C]` by angles given as cosines and sines `[T, C/2]` of the same kind; with `back`, by the
/// negated angles.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Tensor {
    match x.kind() {
        Kind::BFloat16 => by_kind::<bf16>(x, cos, sin, back),
        _ => by_kind::<f32>(x, cos, sin, back),
    }
}

fn by_kind<T: Scalar>(x: &Tensor, cos: &Tensor, sin: &Tensor, back: bool) -> Tensor {
    let size = x.size();
    let [length, heads, dim] = [size[1], size[2], size[3]].map(|n| n as usize);
    let x = x.contiguous();
    let mut y = x.empty_like();
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let (cos, sin) = (slices.of::<T>(cos), slices.of::<T>(sin));
    let sign = if back { -1.0 } else { 1.0 };
    let width = heads * dim;
    let rows = Rows::new(size[0] as usize * length, width);
    let sources = rows.ranges().zip(rows.cut(slices.of::<T>(&x), width));
    let tasks = sources.zip(rows.cut_mut(slices.of_mut::<T>(&mut y), width)).collect();
    parallel_each(tasks, |((range, x), y)| {
        for ((row, x), y) in range.zip(x.chunks_exact(width)).zip(y.chunks_exact_mut(width)) {
            let angles = row % length * (dim / 2)..(row % length + 1) * (dim / 2);
            rotate_heads(x, &cos[angles.clone()], &sin[angles], sign, y);
        }
    });
    y
}

/// Rotates all heads at one position.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn rotate_heads<T: Scalar>(x: &[T], cos: &[T], sin: &[T], sign: f32, y: &mut [T]) {
    let half = cos.len();
    for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
        let ((first, second), (out_first, out_second)) = (x.split_at(half), y.split_at_mut(half));
        for i in 0..half {
            let (cos, sin) = (cos[i].wide(), sign * sin[i].wide());
            let (a, b) = (first[i].wide(), second[i].wide());
            out_first[i] = T::narrow(a * cos - b * sin);
            out_second[i] = T::narrow(b * cos + a * sin);
        }
    }
}
