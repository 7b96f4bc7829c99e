//! The attention half of a block: norm, query/key/value projections, RoPE, attention with sinks, output projection.
//!
//! B batch, T time, N = B*T tokens, D hidden, H query heads, K key/value heads, C head dim.

use anyhow::Result;
use tch::Tensor;

use super::rope::Rotation;
use super::sdpa::{self, Visibility};
use super::{Linear, linear, norm};
use oss_config::Model;

/// Weights of the attention half, or their gradients.
#[derive(Debug)]
pub struct Weights {
    /// `[D]`.
    pub norm: Tensor,
    /// D to H*C.
    pub q: Linear,
    /// D to K*C.
    pub k: Linear,
    /// D to K*C.
    pub v: Linear,
    /// `[H]`.
    pub sinks: Tensor,
    /// H*C to D.
    pub out: Linear,
}

/// What the backward pass needs besides the input; the normalized rows are cheap to recompute.
#[derive(Debug)]
pub struct Saved {
    norm: norm::Saved,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention: sdpa::Saved,
}

impl Saved {
    /// Rotated keys and values `[B, T, K, C]`, for a decoder's cache.
    pub fn keys_values(&self) -> (&Tensor, &Tensor) {
        (&self.k, &self.v)
    }
}

/// Projects normalized rows `[N, D]` to rotated queries `[B, T, H, C]`, rotated keys and values `[B, T, K, C]`.
pub fn project(
    model: &Model,
    normalized: &Tensor,
    weights: &Weights,
    rotation: &Rotation,
    batch: i64,
) -> (Tensor, Tensor, Tensor) {
    let heads = |x: Tensor| x.view([batch, -1, x.size()[1] / model.head_dim, model.head_dim]);
    let [q, k, v] = linear::forward_each(normalized, [&weights.q, &weights.k, &weights.v]).map(heads);
    (rotation.apply(&q), rotation.apply(&k), v)
}

/// Maps the residual rows `x [N, D]` of `batch` sequences to the output that is added to them.
pub fn forward(
    model: &Model,
    x: &Tensor,
    weights: &Weights,
    rotation: &Rotation,
    visibility: &Visibility,
    batch: i64,
) -> Result<(Tensor, Saved)> {
    let (normalized, norm) = norm::forward(x, &weights.norm, model.rms_norm_eps);
    let (q, k, v) = project(model, &normalized, weights, rotation, batch);
    let attention = sdpa::forward(&q, &k, &v, &weights.sinks, visibility)?;
    let rows = attention.output.reshape([x.size()[0], -1]); // [N, H*C]
    let y = linear::forward(&rows, &weights.out);
    Ok((y, Saved { norm, q, k, v, attention }))
}

/// Returns the gradient of `x`, through this half and through the residual connection; accumulates the weights'
/// gradients into `grads`.
pub fn backward(
    grad: &Tensor,
    x: &Tensor,
    weights: &Weights,
    saved: &Saved,
    rotation: &Rotation,
    visibility: &Visibility,
    grads: &mut Weights,
) -> Result<Tensor> {
    let tokens = x.size()[0];
    let rows = saved.attention.output.reshape([tokens, -1]);
    let drows = linear::backward(grad, &rows, &weights.out, &mut grads.out);
    let qkv = (&saved.q, &saved.k, &saved.v);
    let doutput = drows.view_as(&saved.q);
    let [dq, dk, dv] =
        sdpa::backward(&doutput, qkv, &weights.sinks, &saved.attention, visibility, &mut grads.sinks)?;
    let normalized = norm::recompute(x, &weights.norm, &saved.norm);
    let through = |grad: Tensor, layer: &Linear, grads: &mut Linear| {
        linear::backward(&grad.reshape([tokens, -1]), &normalized, layer, grads)
    };
    let dnormalized = through(rotation.apply_backward(&dq), &weights.q, &mut grads.q)
        + through(rotation.apply_backward(&dk), &weights.k, &mut grads.k)
        + through(dv, &weights.v, &mut grads.v);
    Ok(norm::backward(&dnormalized, Some(grad), x, &weights.norm, &saved.norm, &mut grads.norm))
}
