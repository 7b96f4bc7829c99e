//! The last unit: final norm, output matrix, and the loss.
//!
//! N tokens, D hidden, V vocabulary.

use tch::Tensor;

use super::cross_entropy::{LossScratch, MatrixGradient};
use super::linear::wide_product;
use super::{Parameter, cross_entropy, norm};
use oss_config::Model;

/// Weights of the head.
#[derive(Debug)]
pub struct Weights {
    /// `[V, D]`.
    matrix: Tensor,
    /// `[D]`.
    norm: Tensor,
}

impl Weights {
    /// Assigns names to a unit's tensors, which are in the order of [`super::unit_parameters`].
    pub fn new(tensors: &[Tensor]) -> Self {
        let tensor = |parameter: Parameter| tensors[parameter.index()].shallow_clone();
        Self { matrix: tensor(Parameter::LmHead), norm: tensor(Parameter::FinalNorm) }
    }
}

/// Gradients of the head's weights.
#[derive(Debug)]
pub struct Gradients {
    matrix: MatrixGradient,
    norm: Tensor,
}

impl Gradients {
    /// Assigns names to a unit's gradients. The matrix's may hold stale values, which are overwritten; the norm's must
    /// be zero.
    pub fn new(tensors: &[Tensor]) -> Self {
        let Weights { matrix, norm } = Weights::new(tensors);
        Self { matrix: MatrixGradient { sum: matrix, is_stale: true }, norm }
    }
}

/// Logits `[N, V]` for rows `x [N, D]`, in f32 (f64 for f64).
pub fn logits(model: &Model, x: &Tensor, weights: &Weights) -> Tensor {
    let (normalized, _) = norm::forward(x, &weights.norm, model.rms_norm_eps);
    wide_product(&normalized, &weights.matrix.transpose(0, 1))
}

/// Negative log-likelihood of each target, f32 `[N]`, without gradients.
pub fn losses(model: &Model, x: &Tensor, targets: &Tensor, weights: &Weights) -> Tensor {
    let (normalized, _) = norm::forward(x, &weights.norm, model.rms_norm_eps);
    cross_entropy::losses(&normalized, targets, &weights.matrix)
}

/// Returns the summed loss of `targets` (i64 `[N]`) as an f64 scalar tensor, and the gradient of that sum times `scale`
/// with respect to `x [N, D]`; accumulates the weights' gradients into `grads`.
pub fn loss_and_gradient(
    model: &Model,
    x: &Tensor,
    targets: &Tensor,
    weights: &Weights,
    scale: f64,
    grads: &mut Gradients,
    scratch: &mut LossScratch,
) -> (Tensor, Tensor) {
    let (normalized, saved) = norm::forward(x, &weights.norm, model.rms_norm_eps);
    let (loss, grad) = cross_entropy::loss_and_gradient(
        &normalized,
        targets,
        &weights.matrix,
        scale,
        &mut grads.matrix,
        scratch,
    );
    (loss, norm::backward(&grad, None, x, &weights.norm, &saved, &mut grads.norm))
}
