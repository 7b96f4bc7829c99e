//! Causal attention with sinks, forward and backward, without materializing the scores: processes one block of queries
//! and one block of keys at a time (FlashAttention-2, arXiv:2307.08691), and skips keys that no query of the block
//! sees.
//!
//! The query heads of a group are rows of one block, so keys and values are read once for all of them and never
//! repeated. The sink initializes the softmax: it is the first maximum, with a sum of one and no value.
//!
//! Shapes: B batch, T time, H query heads, K key/value heads, G = H / K query heads per group, C head dim.

mod backward;
mod forward;

use std::ops::Range;

use half::bf16;
use tch::{Kind, Tensor};

use super::Scalar;
use oss_torch::{Block, Slices, has_gemm};

/// Rows per block: queries times the heads of a group.
const ROWS: usize = 128;

/// Keys per block.
const KEYS: usize = 128;

/// Tokens of one row that can attend to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The row.
    pub row: usize,
    /// Its tokens.
    pub tokens: Range<usize>,
}

/// Attention over CPU tensors, f32 or bf16.
#[derive(Debug)]
pub struct Flash<'a> {
    /// Queries `[B, T, H, C]`.
    pub q: &'a Tensor,
    /// Keys `[B, T, K, C]`.
    pub k: &'a Tensor,
    /// Values `[B, T, K, C]`.
    pub v: &'a Tensor,
    /// One logit per query head, f32 `[H]`.
    pub sinks: &'a Tensor,
    /// Documents, inside which tokens attend to each other: together all tokens of all rows, in order.
    pub documents: &'a [Document],
    /// Number of most recent keys that a query sees, including its own; the whole document if `None`.
    pub window: Option<i64>,
}

impl Flash<'_> {
    /// Whether the kernel supports tensors like this one.
    pub fn takes(like: &Tensor) -> bool {
        super::supports(like) && has_gemm(like)
    }

    /// Returns the output, shaped like the queries, and each query's log-sum-exp including the sink, f32 `[B, T, H]`.
    pub fn forward(&self) -> (Tensor, Tensor) {
        match self.q.kind() {
            Kind::BFloat16 => forward::forward::<bf16>(self),
            _ => forward::forward::<f32>(self),
        }
    }

    /// Returns the gradients of queries, keys and values given those of `output`; adds the gradients of the sinks to
    /// `grad_sinks` (f32 `[H]`).
    ///
    /// # Panics
    /// Panics if `grad_sinks` shares memory with another tensor.
    pub fn backward(
        &self,
        grad: &Tensor,
        (output, logsumexp): (&Tensor, &Tensor),
        grad_sinks: &mut Tensor,
    ) -> [Tensor; 3] {
        match self.q.kind() {
            Kind::BFloat16 => backward::backward::<bf16>(self, grad, (output, logsumexp), grad_sinks),
            _ => backward::backward::<f32>(self, grad, (output, logsumexp), grad_sinks),
        }
    }

    fn shape(&self) -> Shape {
        let q = self.q.size();
        let [batch, length, heads, dim] = [q[0], q[1], q[2], q[3]].map(|n| n as usize);
        let kv_heads = self.k.size()[2] as usize;
        Shape { batch, length, kv_heads, group: heads / kv_heads, dim }
    }

    /// Slices of contiguous tensors.
    fn inputs<'a, T: Scalar>(&self, slices: &'a Slices, tensors: [&'a Tensor; 3]) -> Inputs<'a, T> {
        let [q, k, v] = tensors.map(|tensor| slices.of(tensor));
        Inputs { q, k, v, shape: self.shape(), window: self.window }
    }

    /// Splits the documents into blocks of queries, in the order of the tensors.
    fn blocks(&self) -> Vec<Queries> {
        let most = (ROWS / self.shape().group).max(1);
        let blocks = |document: &Document| {
            let Document { row, tokens } = document.clone();
            let first = tokens.start;
            let starts = tokens.clone().step_by(most);
            starts.map(move |start| Queries { row, first, start, len: most.min(tokens.end - start) })
        };
        self.documents.iter().flat_map(blocks).collect()
    }
}

/// Sizes of the tensors.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    length: usize,
    kv_heads: usize,
    group: usize,
    dim: usize,
}

/// A block of queries: `start..start + len` of a row, in the document that begins at `first`.
#[derive(Clone, Copy)]
struct Queries {
    row: usize,
    first: usize,
    start: usize,
    len: usize,
}

struct Inputs<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    shape: Shape,
    window: Option<i64>,
}

impl<'a, T: Scalar> Inputs<'a, T> {
    fn scale(&self) -> f32 {
        1.0 / (self.shape.dim as f32).sqrt()
    }

    /// Keys that the query at `position` sees.
    fn seen(&self, queries: &Queries, position: usize) -> Range<usize> {
        let outside = self.window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
        outside.max(queries.first)..position + 1
    }

    /// Blocks of keys that at least one of the queries sees.
    fn key_blocks(&self, queries: &Queries) -> impl Iterator<Item = Range<usize>> + use<T> {
        let end = queries.start + queries.len;
        let first = self.seen(queries, queries.start).start;
        (first..end).step_by(KEYS).map(move |start| start..end.min(start + KEYS))
    }

    /// The range, relative to a block of `keys`, that row `row` of the block of queries sees.
    fn seen_of(&self, queries: &Queries, row: usize, keys: &Range<usize>) -> Range<usize> {
        let seen = self.seen(queries, queries.start + row % queries.len);
        let clamp = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
        clamp(seen.start)..clamp(seen.end)
    }

    /// Gathers the block's rows `[G * len, C]` from a tensor `[B, T, H, C]`, head by head.
    fn gather(&self, x: &[T], queries: &Queries, head: usize, rows: &mut Vec<T>) {
        let Shape { length, kv_heads, group, dim, .. } = self.shape;
        rows.clear();
        for member in 0..group {
            for position in queries.start..queries.start + queries.len {
                let token = queries.row * length + position;
                rows.extend_from_slice(&x[((token * kv_heads + head) * group + member) * dim..][..dim]);
            }
        }
    }

    /// Rows of a tensor `[B, T, K, C]` for one head, starting at the key `first`.
    fn keys_of(&self, x: &'a [T], row: usize, head: usize, first: usize) -> Block<'a, T> {
        let Shape { length, kv_heads, dim, .. } = self.shape;
        let start = ((row * length + first) * kv_heads + head) * dim;
        Block { data: &x[start..], row_stride: kv_heads * dim, column_stride: 1 }
    }
}
