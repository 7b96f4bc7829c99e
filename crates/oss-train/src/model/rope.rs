//! Rotary position embeddings (RoPE, arXiv:2104.09864) with YaRN context extension (arXiv:2309.00071), as in gpt-oss.
//!
//! B batch, T time, H heads (query or key), C head dim.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use oss_config::Model;

/// Returns the inverse frequencies (radians per position) for `i = 0..C/2`, and the factor applied to cos and sin.
///
/// High frequencies are unchanged, low ones are divided by `factor`. Between `beta_fast` and `beta_slow` rotations over
/// the original context, the two are blended by a linear ramp whose ends are not rounded to integers.
pub fn inverse_frequencies(model: &Model) -> (Vec<f64>, f64) {
    let scaling = &model.rope_scaling;
    let dim = model.head_dim as f64;
    let context = scaling.original_max_position_embeddings as f64;
    let turning = |rotations: f64| {
        dim * (context / (rotations * std::f64::consts::TAU)).ln() / (2.0 * model.rope_theta.ln())
    };
    let low = turning(scaling.beta_fast).max(0.0);
    let high = turning(scaling.beta_slow).min(dim - 1.0);
    let width = if high == low { 1e-3 } else { high - low };
    let frequencies = (0..model.head_dim / 2)
        .map(|i| {
            let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
            let frequency = model.rope_theta.powf(-2.0 * i as f64 / dim);
            frequency / scaling.factor * ramp + frequency * (1.0 - ramp)
        })
        .collect();
    (frequencies, 0.1 * scaling.factor.ln() + 1.0)
}

/// The cos and sin tables for a set of positions.
#[derive(Debug)]
pub struct Rotation {
    /// `[T, 1, C/2]`, scaled, in the dtype of the tensors that are rotated.
    cos: Tensor,
    /// Like `cos`.
    sin: Tensor,
}

impl Rotation {
    /// Computes the tables for `positions` (i64 `[T]`) in f32 (f64 if `kind` is f64), then casts them to `kind`.
    ///
    /// # Errors
    /// If no pinned host memory can be allocated for the copy to a GPU.
    pub fn new(model: &Model, positions: &Tensor, kind: Kind) -> Result<Self> {
        let (frequencies, scale) = inverse_frequencies(model);
        let compute = super::wide_kind(kind);
        let frequencies = oss_torch::upload(&frequencies, positions.device())?.to_kind(compute);
        let angles = positions.to_kind(compute).unsqueeze(-1) * frequencies; // [T, C/2]
        let table = |values: Tensor| (values * scale).to_kind(kind).unsqueeze(-2);
        Ok(Self { cos: table(angles.cos()), sin: table(angles.sin()) })
    }

    /// Positions `0..length` on `device`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn consecutive(model: &Model, length: i64, kind: Kind, device: Device) -> Result<Self> {
        Self::new(model, &Tensor::arange(length, (Kind::Int64, device)), kind)
    }

    /// Rotates `x [.., T, heads, C]`, pairing the first half of the last axis with the second.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        self.rotate(x, false)
    }

    /// The gradient of [`Rotation::apply`]: the rotation by the opposite angle.
    pub fn apply_backward(&self, grad: &Tensor) -> Tensor {
        self.rotate(grad, true)
    }

    fn rotate(&self, x: &Tensor, back: bool) -> Tensor {
        if oss_kernels::supports(x) {
            return oss_kernels::rotate(x, &self.cos, &self.sin, back);
        }
        let sin = if back { &self.sin.neg() } else { &self.sin };
        let halves = x.chunk(2, -1);
        let (first, second) = (&halves[0], &halves[1]);
        Tensor::cat(&[first * &self.cos - second * sin, second * &self.cos + first * sin], -1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_match_the_released_model() {
        let (frequencies, scale) = inverse_frequencies(&Model::default());
        let expected = [
            1.0, 0.6890443, 0.4747820, 0.3271459, 0.2254180, 0.1553230, 0.1070244, 0.0737446, 0.0508133,
            0.0317057, 0.0193350,
        ];
        for (i, (seen, wanted)) in frequencies.iter().zip(expected).enumerate() {
            assert!((seen - wanted).abs() < 1e-6, "frequency {i}: {seen}, not {wanted}");
        }
        assert!((scale - 1.3465735903).abs() < 1e-9);
    }
}
