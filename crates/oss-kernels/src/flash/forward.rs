//! Forward pass: each block of queries maintains a running softmax over the keys so far (online softmax,
//! arXiv:1805.02867).

use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

use super::{Flash, Inputs, KEYS, Queries};
use crate::Scalar;
use crate::exp::exp;
use crate::partition::LANES;
use oss_torch::{Block, Slices, block_product, num_threads, parallel_each};

/// One block of queries of one group, and where its results go: one slice per query.
struct Task<'a, T> {
    queries: Queries,
    head: usize,
    output: Vec<&'a mut [T]>,
    logsumexp: Vec<&'a mut [f32]>,
}

pub fn forward<T: Scalar>(flash: &Flash<'_>) -> (Tensor, Tensor) {
    let shape = flash.shape();
    let [q, k, v] = [flash.q, flash.k, flash.v].map(Tensor::contiguous);
    let mut output = q.empty_like();
    let heads = (shape.kv_heads * shape.group) as i64;
    let size = [shape.batch as i64, shape.length as i64, heads];
    let mut logsumexp = Tensor::empty(size, (Kind::Float, Device::Cpu));

    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let (inputs, sinks) = (flash.inputs::<T>(&slices, [&q, &k, &v]), slices.of::<f32>(flash.sinks));
    let mut outputs = slices.of_mut::<T>(&mut output).chunks_exact_mut(shape.group * shape.dim);
    let mut logsumexps = slices.of_mut::<f32>(&mut logsumexp).chunks_exact_mut(shape.group);
    let mut tasks = Vec::new();
    for queries in flash.blocks() {
        let task = |head| Task { queries, head, output: Vec::new(), logsumexp: Vec::new() };
        let mut heads: Vec<Task<'_, T>> = (0..shape.kv_heads).map(task).collect();
        for _ in 0..queries.len {
            for task in &mut heads {
                task.output.extend(outputs.next());
                task.logsumexp.extend(logsumexps.next());
            }
        }
        tasks.append(&mut heads);
    }
    parallel_each(dealt(tasks), |task| attend(&inputs, sinks, task));
    (output, logsumexp)
}

/// Reorders `tasks` so that threads, each of which takes contiguous tasks, get an equal mix of late tasks, which see
/// more keys, and early ones.
fn dealt<T>(tasks: Vec<T>) -> Vec<T> {
    let threads = num_threads();
    let mut hands: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, task) in tasks.into_iter().enumerate() {
        hands[index % threads].push(task);
    }
    hands.into_iter().flatten().collect()
}

fn attend<T: Scalar>(inputs: &Inputs<'_, T>, sinks: &[f32], task: Task<'_, T>) {
    let Task { queries, head, output, logsumexp } = task;
    let (group, dim) = (inputs.shape.group, inputs.shape.dim);
    let rows = group * queries.len;
    let mut q = Vec::with_capacity(rows * dim);
    inputs.gather(inputs.q, &queries, head, &mut q);
    let sink = |row: usize| sinks[head * group + row / queries.len];
    let mut softmax: Vec<Softmax> = (0..rows).map(|row| Softmax { max: sink(row), sum: 1.0 }).collect();
    let mut scores = vec![0.0; rows * KEYS];
    let mut shares = vec![T::narrow(0.0); rows * KEYS];
    let mut mixed = vec![0.0; rows * dim];
    for keys in inputs.key_blocks(&queries) {
        let count = keys.len();
        let k = inputs.keys_of(inputs.k, queries.row, head, keys.start);
        block_product(&mut scores, Block::new(&q, dim), k.transposed(), (rows, count, dim), false);
        let each = scores.chunks_exact(count).zip(shares.chunks_exact_mut(count)).zip(&mut softmax);
        for (row, ((scores, shares), softmax)) in each.take(rows).enumerate() {
            let seen = inputs.seen_of(&queries, row, &keys);
            let (before, after) = (seen.start, seen.end);
            shares[..before].fill(T::narrow(0.0));
            shares[after..].fill(T::narrow(0.0));
            if seen.is_empty() {
                continue;
            }
            let factor = add_keys(&scores[seen.clone()], inputs.scale(), softmax, &mut shares[seen]);
            if factor != 1.0 {
                scale_by(&mut mixed[row * dim..][..dim], factor);
            }
        }
        let v = inputs.keys_of(inputs.v, queries.row, head, keys.start);
        block_product(&mut mixed, Block::new(&shares, count), v, (rows, dim, count), true);
    }
    for (query, (output, logsumexp)) in output.into_iter().zip(logsumexp).enumerate() {
        for (member, (output, logsumexp)) in output.chunks_exact_mut(dim).zip(logsumexp).enumerate() {
            let row = member * queries.len + query;
            let Softmax { max, sum } = softmax[row];
            for (output, mixed) in output.iter_mut().zip(&mixed[row * dim..]) {
                *output = T::narrow(mixed / sum);
            }
            *logsumexp = max + sum.ln();
        }
    }
}

/// A query's largest logit so far, and the sum of the exponentials relative to it.
struct Softmax {
    max: f32,
    sum: f32,
}

/// Adds a row of scores to the softmax: stores their exponentials relative to the new maximum in `shares`, and returns
/// the factor that rescales earlier ones to it.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn add_keys<T: Scalar>(scores: &[f32], scale: f32, softmax: &mut Softmax, shares: &mut [T]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let chunks = scores.chunks_exact(LANES);
    for (max, &score) in maxima.iter_mut().zip(chunks.remainder()) {
        *max = score;
    }
    for chunk in chunks {
        for (max, &score) in maxima.iter_mut().zip(chunk) {
            *max = if score > *max { score } else { *max };
        }
    }
    let most = maxima.into_iter().fold(f32::NEG_INFINITY, |most, max| if max > most { max } else { most });
    let max = if most * scale > softmax.max { most * scale } else { softmax.max };
    let mut sums = [0.0; LANES];
    for (scores, shares) in scores.chunks(LANES).zip(shares.chunks_mut(LANES)) {
        for ((score, share), sum) in scores.iter().zip(shares).zip(&mut sums) {
            let e = exp(score * scale - max);
            *sum += e;
            *share = T::narrow(e);
        }
    }
    let factor = exp(softmax.max - max);
    softmax.sum = softmax.sum * factor + sums.iter().sum::<f32>();
    softmax.max = max;
    factor
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn scale_by(row: &mut [f32], factor: f32) {
    for x in row {
        *x *= factor;
    }
}
