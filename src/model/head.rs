//! The last unit: final norm, output matrix, and the cross-entropy computed in chunks of tokens, so that full logits
//! never exist.
//!
//! N tokens, D hidden, V vocabulary.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::linear::accumulate_product;
use super::{norm, wide};
use crate::experiment::Model;

/// Most bytes of logits held at once.
pub const LOGITS_CHUNK_BYTES: i64 = 256 << 20;

/// Weights of the head, or their gradients.
#[derive(Debug)]
pub struct Weights {
    /// `[V, D]`.
    matrix: Tensor,
    /// `[D]`.
    norm: Tensor,
}

impl Weights {
    /// Names a unit's tensors, which come in the order of [`super::unit_parameters`].
    pub fn new(tensors: &[Tensor]) -> Self {
        Self { matrix: tensors[0].shallow_clone(), norm: tensors[1].shallow_clone() }
    }
}

/// Logits `[N, V]` of rows `x [N, D]`, in f32 (f64 for f64).
pub fn logits(model: &Model, x: &Tensor, weights: &Weights) -> Tensor {
    let (normalised, _) = norm::forward(x, &weights.norm, model.rms_norm_eps);
    wide(&normalised.matmul(&weights.matrix.transpose(0, 1)))
}

fn chunks(tokens: i64, vocab: i64) -> impl Iterator<Item = (i64, i64)> {
    let rows = (LOGITS_CHUNK_BYTES / (4 * vocab)).clamp(1, tokens.max(1));
    // Chunks of nearly one size, so that no product is left with a handful of rows.
    let count = (tokens + rows - 1) / rows;
    (0..count).map(move |i| (i * tokens / count, (i + 1) * tokens / count - i * tokens / count))
}

/// Negative log-likelihood of each target, f32 `[N]`, without gradients.
pub fn losses(model: &Model, x: &Tensor, targets: &Tensor, weights: &Weights) -> Tensor {
    let (normalised, _) = norm::forward(x, &weights.norm, model.rms_norm_eps);
    let columns = weights.matrix.transpose(0, 1);
    let parts: Vec<Tensor> = chunks(x.size()[0], weights.matrix.size()[0])
        .map(|(start, len)| {
            let logits = wide(&normalised.narrow(0, start, len).matmul(&columns));
            let target = targets.narrow(0, start, len).unsqueeze(-1);
            logits.logsumexp([-1i64].as_slice(), false) - logits.gather(-1, &target, false).squeeze_dim(-1)
        })
        .collect();
    Tensor::cat(&parts, 0)
}

/// The summed loss of `targets` (i64 `[N]`) as an f64 scalar tensor, and the gradient of `x [N, D]` of that sum times
/// `scale`; the weights' gradients are added to `grads`.
pub fn loss_and_gradient(
    model: &Model,
    x: &Tensor,
    targets: &Tensor,
    weights: &Weights,
    scale: f64,
    grads: &mut Weights,
) -> Result<(Tensor, Tensor)> {
    let (normalised, saved) = norm::forward(x, &weights.norm, model.rms_norm_eps);
    let columns = weights.matrix.transpose(0, 1); // [D, V]
    let mut total = Tensor::zeros([], (Kind::Double, x.device()));
    let grad_normalised = normalised.empty_like();
    for (start, len) in chunks(x.size()[0], weights.matrix.size()[0]) {
        let rows = normalised.narrow(0, start, len);
        let target = targets.narrow(0, start, len).unsqueeze(-1); // [n, 1]
        let log_likelihood = wide(&rows.matmul(&columns)).log_softmax(-1, None::<Kind>); // [n, V]
        total -= log_likelihood.gather(-1, &target, false).sum(Kind::Double);
        // The gradient of the summed loss by the logits is softmax minus one-hot; `scale` waits for the narrower sides.
        let mut grad_logits = { log_likelihood }.exp_();
        let minus_one = Tensor::full([len, 1], -1.0, (grad_logits.kind(), x.device()));
        let grad_logits = grad_logits.scatter_add_(-1, &target, &minus_one).to_kind(x.kind());
        grad_normalised.narrow(0, start, len).copy_(&(grad_logits.matmul(&weights.matrix) * scale));
        accumulate_product(&mut grads.matrix, &grad_logits.transpose(0, 1), &(rows * scale));
    }
    let grad = norm::backward(&grad_normalised, x, &weights.norm, &saved, &mut grads.norm);
    Ok((total, grad))
}
