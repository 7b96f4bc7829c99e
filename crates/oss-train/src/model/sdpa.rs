//! Causal scaled dot-product attention with one learned sink logit per head, without materialized scores.
//!
//! On the CPU our own kernel ([`Flash`]) does everything; elsewhere we use libtorch's, which do not support sinks. A
//! sink takes part in the softmax but has no value, so it can be added exactly afterwards: `lse' = logaddexp(lse, s)`
//! and `o' = o * exp(lse - lse')`. The backward pass hands (o', lse') to libtorch's kernel, which then sees the
//! probabilities with the sink included; the sink's own gradient is `-sum(exp(s - lse') * rowsum(dO * o'))`.
//!
//! B batch, T time, H query heads, K key/value heads, C head dim.

mod cuda;
#[cfg(test)]
mod tests;
mod tiles;

use anyhow::Result;
use tch::Tensor;

use oss_kernels::{Document, Flash};
use oss_torch::{FlashForward, Packed};

/// Which keys the queries of one pass may see.
#[derive(Clone, Debug)]
pub struct Visibility {
    /// Size of the sliding window: the number of most recent keys, including the query's own; unlimited if unset.
    pub window: Option<i64>,
    /// Document lengths of each row, in order, if attention is restricted to each token's own document.
    pub documents: Option<std::sync::Arc<Vec<Vec<i64>>>>,
}

/// What the backward pass needs besides query, key and value.
#[derive(Debug)]
pub struct Saved {
    /// `[B, T, H, C]`.
    pub output: Tensor,
    /// Includes the sink: f32 `[B, T, H]` (CUDA flash: in its kernel's own layout).
    logsumexp: Tensor,
    flash: Option<(FlashForward, Option<Packed>)>,
}

/// Attends with queries `[B, T, H, C]`, keys and values `[B, T, K, C]` (already rotated) and sinks, f32 `[H]`; the
/// result is `Saved.output`.
pub fn forward(q: &Tensor, k: &Tensor, v: &Tensor, sinks: &Tensor, visibility: &Visibility) -> Result<Saved> {
    if Flash::takes(q) {
        let documents = documents(q, visibility);
        let flash = Flash { q, k, v, sinks, documents: &documents, window: visibility.window };
        let (output, logsumexp) = flash.forward();
        return Ok(Saved { output, logsumexp, flash: None });
    }
    if cuda::has_flash(q) {
        return cuda::forward((q, k, v), sinks, visibility, scale(q));
    }
    tiles::forward((q, k, v), sinks, visibility, scale(q))
}

/// Returns the gradients of queries, keys and values; accumulates the sinks' into `grad_sinks`.
pub fn backward(
    grad: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    sinks: &Tensor,
    saved: &Saved,
    visibility: &Visibility,
    grad_sinks: &mut Tensor,
) -> Result<[Tensor; 3]> {
    if Flash::takes(q) {
        let documents = documents(q, visibility);
        let flash = Flash { q, k, v, sinks, documents: &documents, window: visibility.window };
        return Ok(flash.backward(grad, (&saved.output, &saved.logsumexp), grad_sinks));
    }
    // [B, T, H] in the dtype of the logsumexp.
    let projection =
        (grad * &saved.output).to_kind(sinks.kind()).sum_dim_intlist([-1i64].as_slice(), false, None);
    let lse = match &saved.flash {
        None => saved.logsumexp.shallow_clone(),
        Some(_) => cuda::lse_by_token(&saved.logsumexp, q),
    };
    let share = (sinks - lse).exp(); // the sink's probability
    let _ = grad_sinks.g_sub_(&(share * projection).sum_dim_intlist([0i64, 1].as_slice(), false, None));
    match &saved.flash {
        Some((flash, packed)) => {
            cuda::backward(grad, (q, k, v), saved, flash, packed.as_ref(), visibility, scale(q))
        }
        None => tiles::backward(grad, (q, k, v), saved, visibility, scale(q)),
    }
}

/// The scale of the scores.
fn scale(q: &Tensor) -> f64 {
    (q.size()[3] as f64).powf(-0.5)
}

/// The documents in `q`'s rows, in order: tokens attend only within one.
fn documents(q: &Tensor, visibility: &Visibility) -> Vec<Document> {
    let (rows, length) = (q.size()[0], q.size()[1]);
    let lengths = |row: usize| match &visibility.documents {
        None => vec![length],
        Some(documents) => documents[row].clone(),
    };
    (0..rows as usize)
        .flat_map(|row| {
            lengths(row).into_iter().scan(0, move |end, len| {
                let start = *end;
                *end += len as usize;
                Some(Document { row, tokens: start..*end })
            })
        })
        .collect()
}
