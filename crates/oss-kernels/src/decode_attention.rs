//! The key/value cache, and attention over it with one query per sequence and sinks.
//!
//! Shapes: B batch, K key/value heads, G query heads per key/value head, S cached positions, C head dim.

use half::bf16;
use multiversion::multiversion;
use tch::{Kind, Tensor};

use super::Scalar;
use super::exp::exp;
use super::partition::{Rows, sum};
use oss_torch::{Slices, element_bytes, parallel_each};

/// Writes one key and one value per sequence and head, `[B, K, C]`, into their slots of a cache (`[B, K, S, C]` each,
/// and the position that each slot holds, i64 `[B, S]`): position p goes to slot p % S.
///
/// # Panics
/// Panics if a part of the cache shares memory with another part or with the new keys and values.
pub fn append(
    (keys, values, held): (&mut Tensor, &mut Tensor, &mut Tensor),
    positions: &Tensor,
    (new_keys, new_values): (&Tensor, &Tensor),
) {
    let size = keys.size();
    let [kv_heads, slots, dim] = [size[1], size[2], size[3]].map(|n| n as usize);
    let new = [new_keys, new_values].map(Tensor::contiguous);
    // SAFETY: nothing else accesses the tensors until the loops are over.
    let slices = unsafe { Slices::new() };
    let positions = slices.of::<i64>(positions);
    let slot_of = |sequence: usize| positions[sequence] as usize % slots;
    for (cache, new) in [keys, values].into_iter().zip(&new) {
        let bytes_of_row = dim * element_bytes(cache.kind());
        let cache = slices.bytes_of_mut(cache);
        for (row, new) in slices.bytes_of(new).chunks_exact(bytes_of_row).enumerate() {
            let start = (row * slots + slot_of(row / kv_heads)) * bytes_of_row;
            cache[start..][..bytes_of_row].copy_from_slice(new);
        }
    }
    let held = slices.of_mut::<i64>(held);
    for (sequence, position) in positions.iter().enumerate() {
        held[sequence * slots + slot_of(sequence)] = *position;
    }
}

/// Attention of queries `[B, K*G, C]` at `positions` (i64 `[B]`) over keys and values `[B, K, S, C]`, whose positions
/// are `held` (i64 `[B, S]`); a query sees those up to its own position. The sinks are f32 `[K*G]`, the result `[B,
/// K*G*C]`.
pub fn decode_attention(
    q: &Tensor,
    (keys, values): (&Tensor, &Tensor),
    held: &Tensor,
    positions: &Tensor,
    sinks: &Tensor,
) -> Tensor {
    match q.kind() {
        Kind::BFloat16 => by_kind::<bf16>(q, (keys, values), held, positions, sinks),
        _ => by_kind::<f32>(q, (keys, values), held, positions, sinks),
    }
}

fn by_kind<T: Scalar>(
    q: &Tensor,
    (keys, values): (&Tensor, &Tensor),
    held: &Tensor,
    positions: &Tensor,
    sinks: &Tensor,
) -> Tensor {
    let size = keys.size();
    let [batch, kv_heads, slots, dim] = [size[0], size[1], size[2], size[3]].map(|n| n as usize);
    let group = q.size()[1] as usize / kv_heads;
    let q = q.contiguous();
    let mut y = Tensor::empty([size[0], (kv_heads * group * dim) as i64], (q.kind(), q.device()));
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let (keys, values, sinks) = (slices.of::<T>(keys), slices.of::<T>(values), slices.of::<f32>(sinks));
    let (held, positions) = (slices.of::<i64>(held), slices.of::<i64>(positions));
    let width = group * dim;
    let rows = Rows::new(batch * kv_heads, slots * width);
    let tasks = rows.ranges().zip(rows.cut(slices.of::<T>(&q), width));
    let tasks = tasks.zip(rows.cut_mut(slices.of_mut::<T>(&mut y), width)).collect();
    parallel_each(tasks, |((range, q), y)| {
        let mut scores = vec![0.0; slots];
        for ((row, q), y) in range.zip(q.chunks_exact(width)).zip(y.chunks_exact_mut(width)) {
            let (sequence, head) = (row / kv_heads, row % kv_heads);
            let (held, position) = (&held[sequence * slots..][..slots], positions[sequence]);
            // In a ring buffer that is not yet full, the free slots come last.
            let reached = held.iter().rposition(|&held| held <= position).map_or(0, |slot| slot + 1);
            let cached = row * slots * dim..(row * slots + reached) * dim;
            let (keys, values) = (&keys[cached.clone()], &values[cached]);
            let seen = Seen { keys, values, held: &held[..reached], position };
            let heads = q.chunks_exact(dim).zip(y.chunks_exact_mut(dim)).zip(&sinks[head * group..]);
            for ((q, y), sink) in heads {
                one_head(q, &seen, *sink, &mut scores, y);
            }
        }
    });
    y
}

/// What the queries of one sequence see of one head's cache.
struct Seen<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    held: &'a [i64],
    position: i64,
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn one_head<T: Scalar>(q: &[T], seen: &Seen<'_, T>, sink: f32, scores: &mut [f32], y: &mut [T]) {
    let dim = q.len();
    let scale = 1.0 / (dim as f32).sqrt();
    let mut max = sink;
    for ((score, key), held) in scores.iter_mut().zip(seen.keys.chunks_exact(dim)).zip(seen.held) {
        *score = match *held <= seen.position {
            true => sum(dim, |i| q[i].wide() * key[i].wide()) * scale,
            false => f32::NEG_INFINITY,
        };
        max = if *score > max { *score } else { max };
    }
    let mut total = exp(sink - max);
    for (score, held) in scores.iter_mut().zip(seen.held) {
        *score = if *held <= seen.position { exp(*score - max) } else { 0.0 };
        total += *score;
    }
    let mut mixed = vec![0.0; dim];
    for ((score, value), held) in scores.iter().zip(seen.values.chunks_exact(dim)).zip(seen.held) {
        if *held <= seen.position {
            for (mixed, value) in mixed.iter_mut().zip(value) {
                *mixed += score * value.wide();
            }
        }
    }
    for (y, mixed) in y.iter_mut().zip(&mixed) {
        *y = T::narrow(mixed / total);
    }
}
