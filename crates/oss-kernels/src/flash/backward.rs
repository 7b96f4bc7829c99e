//! Backward pass: each query's probabilities are recomputed from its scores and their log-sum-exp.

use multiversion::multiversion;
use tch::Tensor;

use super::{Flash, Inputs, KEYS, Queries, Shape};
use crate::Scalar;
use crate::exp::exp;
use crate::partition::sum;
use oss_torch::{Block, Slices, block_product, num_threads, parallel_each};

/// Results of the forward pass, and the gradient of its output.
struct Saved<'a, T> {
    grad: &'a [T],
    output: &'a [T],
    logsumexp: &'a [f32],
    sinks: &'a [f32],
}

/// Blocks of queries of one row and one group, and where the queries' gradients go: one slice per query.
struct Task<'a, 'b, T> {
    row: usize,
    head: usize,
    blocks: Vec<(Queries, Vec<&'a mut [T]>)>,
    sums: &'b mut Sums,
}

/// Sums accumulated by a task.
#[derive(Default)]
struct Sums {
    /// Gradients of the keys and values `[T, C]`.
    k: Vec<f32>,
    v: Vec<f32>,
    /// Gradients of the group's sinks.
    sinks: Vec<f64>,
}

pub fn backward<T: Scalar>(
    flash: &Flash<'_>,
    grad: &Tensor,
    (output, logsumexp): (&Tensor, &Tensor),
    grad_sinks: &mut Tensor,
) -> [Tensor; 3] {
    let shape = flash.shape();
    let [q, k, v, grad] = [flash.q, flash.k, flash.v, grad].map(Tensor::contiguous);
    let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(Tensor::empty_like);
    // SAFETY: nothing else accesses the tensors until the loops are over.
    let slices = unsafe { Slices::new() };
    let inputs = flash.inputs::<T>(&slices, [&q, &k, &v]);
    let saved = Saved {
        grad: slices.of(&grad),
        output: slices.of(output),
        logsumexp: slices.of(logsumexp),
        sinks: slices.of(flash.sinks),
    };
    let grad_sinks = slices.of_mut::<f32>(grad_sinks);

    // Every task adds to all keys of its row and head. If there are fewer of these than threads, several tasks share
    // one, and their sums are added in order.
    let sharing = num_threads().div_ceil(shape.batch * shape.kv_heads);
    let of = |row: usize, head: usize| (row * shape.kv_heads + head) * sharing;
    let mut sums: Vec<Sums> = (0..of(shape.batch, 0)).map(|_| Sums::default()).collect();
    let mut tasks: Vec<Task<'_, '_, T>> = sums
        .iter_mut()
        .enumerate()
        .map(|(index, sums)| {
            let (row, head) = (index / sharing / shape.kv_heads, index / sharing % shape.kv_heads);
            Task { row, head, blocks: Vec::new(), sums }
        })
        .collect();
    let mut rows = slices.of_mut::<T>(&mut dq).chunks_exact_mut(shape.group * shape.dim);
    for (index, queries) in flash.blocks().into_iter().enumerate() {
        let mut heads: Vec<Vec<&mut [T]>> = (0..shape.kv_heads).map(|_| Vec::new()).collect();
        for _ in 0..queries.len {
            heads.iter_mut().for_each(|head| head.extend(rows.next()));
        }
        for (head, rows) in heads.into_iter().enumerate() {
            tasks[of(queries.row, head) + index % sharing].blocks.push((queries, rows));
        }
    }
    parallel_each(tasks, |task| differentiate(&inputs, &saved, task));

    let sums: Vec<&Sums> = sums.chunks_mut(sharing).map(Sums::merge).collect();
    write_keys::<T>(shape, slices.of_mut(&mut dk), &sums, |sums| &sums.k);
    write_keys::<T>(shape, slices.of_mut(&mut dv), &sums, |sums| &sums.v);
    for (head, grad) in grad_sinks.iter_mut().enumerate() {
        let (kv_head, member) = (head / shape.group, head % shape.group);
        let of_head = sums.iter().skip(kv_head).step_by(shape.kv_heads);
        *grad += of_head.map(|sums| sums.sinks[member]).sum::<f64>() as f32;
    }
    [dq, dk, dv]
}

impl Sums {
    /// Adds up the sums of tasks that share a row and a head, in the first of them.
    fn merge(sharing: &mut [Self]) -> &Self {
        let (first, others) = sharing.split_first_mut().unwrap_or_else(|| unreachable!("at least one task"));
        let add =
            |all: &mut [f32], more: &[f32]| all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        for other in others {
            add(&mut first.k, &other.k);
            add(&mut first.v, &other.v);
            first.sinks.iter_mut().zip(&other.sinks).for_each(|(all, more)| *all += more);
        }
        first
    }
}

/// Writes the sums `[T, C]` of all rows and heads to the gradient `[B, T, K, C]`.
fn write_keys<T: Scalar>(
    shape: Shape,
    grad: &mut [T],
    sums: &[&Sums],
    part: impl Fn(&Sums) -> &Vec<f32> + Sync,
) {
    let rows = grad.chunks_exact_mut(shape.length * shape.kv_heads * shape.dim);
    let tasks = rows.zip(sums.chunks(shape.kv_heads)).collect();
    parallel_each(tasks, |(row, heads): (&mut [T], &[&Sums])| {
        for (index, key) in row.chunks_exact_mut(shape.dim).enumerate() {
            let (position, head) = (index / shape.kv_heads, index % shape.kv_heads);
            for (key, sum) in key.iter_mut().zip(&part(heads[head])[position * shape.dim..]) {
                *key = T::narrow(*sum);
            }
        }
    });
}

fn differentiate<T: Scalar>(inputs: &Inputs<'_, T>, saved: &Saved<'_, T>, task: Task<'_, '_, T>) {
    let Task { row: sequence, head, blocks, sums } = task;
    let (group, dim, length) = (inputs.shape.group, inputs.shape.dim, inputs.shape.length);
    let heads = inputs.shape.kv_heads * group;
    *sums = Sums { k: vec![0.0; length * dim], v: vec![0.0; length * dim], sinks: vec![0.0; group] };
    let [mut q, mut grad, mut output, mut shares, mut slopes] = [const { Vec::new() }; 5];
    let [mut scores, mut grad_shares, mut dq] = [const { Vec::new() }; 3];
    for (queries, dq_rows) in blocks {
        let rows = group * queries.len;
        inputs.gather(inputs.q, &queries, head, &mut q);
        inputs.gather(saved.grad, &queries, head, &mut grad);
        inputs.gather(saved.output, &queries, head, &mut output);
        scores.resize(rows * KEYS, 0.0);
        grad_shares.resize(rows * KEYS, 0.0);
        shares.resize(rows * KEYS, T::narrow(0.0));
        slopes.resize(rows * KEYS, T::narrow(0.0));
        dq.clear();
        dq.resize(rows * dim, 0.0);
        let logsumexp = |row: usize| {
            let (member, position) = (row / queries.len, queries.start + row % queries.len);
            saved.logsumexp[(sequence * length + position) * heads + head * group + member]
        };
        let each = grad.chunks_exact(dim).zip(output.chunks_exact(dim)).enumerate();
        let marks: Vec<Mark> = each
            .map(|(row, (grad, output))| {
                let projection = sum(dim, |i| grad[i].wide() * output[i].wide());
                Mark { logsumexp: logsumexp(row), projection }
            })
            .collect();
        for (row, mark) in marks.iter().enumerate() {
            let sink = saved.sinks[head * group + row / queries.len];
            sums.sinks[row / queries.len] -= f64::from((sink - mark.logsumexp).exp() * mark.projection);
        }
        for keys in inputs.key_blocks(&queries) {
            let count = keys.len();
            let k = inputs.keys_of(inputs.k, sequence, head, keys.start);
            let v = inputs.keys_of(inputs.v, sequence, head, keys.start);
            let size = (rows, count, dim);
            block_product(&mut scores, Block::new(&q, dim), k.transposed(), size, false);
            block_product(&mut grad_shares, Block::new(&grad, dim), v.transposed(), size, false);
            for (row, mark) in marks.iter().enumerate() {
                let seen = inputs.seen_of(&queries, row, &keys);
                let row = row * count..(row + 1) * count;
                let (shares, slopes) = (&mut shares[row.clone()], &mut slopes[row.clone()]);
                let (scores, grad_shares) = (&scores[row.clone()], &grad_shares[row]);
                for rest in [0..seen.start, seen.end..count] {
                    shares[rest.clone()].fill(T::narrow(0.0));
                    slopes[rest].fill(T::narrow(0.0));
                }
                let (scores, grad_shares) = (&scores[seen.clone()], &grad_shares[seen.clone()]);
                let into = (&mut shares[seen.clone()], &mut slopes[seen]);
                through_softmax((scores, grad_shares), inputs.scale(), mark, into);
            }
            let at = keys.start * dim;
            let (shares, slopes) = (Block::new(&shares, count), Block::new(&slopes, count));
            let size = (count, dim, rows);
            block_product(&mut sums.v[at..], shares.transposed(), Block::new(&grad, dim), size, true);
            block_product(&mut sums.k[at..], slopes.transposed(), Block::new(&q, dim), size, true);
            block_product(&mut dq, slopes, k, (rows, dim, count), true);
        }
        for (query, dq_row) in dq_rows.into_iter().enumerate() {
            for (member, into) in dq_row.chunks_exact_mut(dim).enumerate() {
                let row = member * queries.len + query;
                for (into, sum) in into.iter_mut().zip(&dq[row * dim..]) {
                    *into = T::narrow(*sum);
                }
            }
        }
    }
}

/// Per query: its log-sum-exp, and the dot product of its output and the output's gradient.
struct Mark {
    logsumexp: f32,
    projection: f32,
}

/// Computes a query's probabilities from its scores, and the gradients of the scores from those of the probabilities.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn through_softmax<T: Scalar>(
    (scores, grad_shares): (&[f32], &[f32]),
    scale: f32,
    mark: &Mark,
    (shares, slopes): (&mut [T], &mut [T]),
) {
    let each = scores.iter().zip(grad_shares).zip(shares).zip(slopes);
    for (((score, grad_share), share), slope) in each {
        let e = exp(score * scale - mark.logsumexp);
        *share = T::narrow(e);
        *slope = T::narrow(e * (grad_share - mark.projection) * scale);
    }
}
