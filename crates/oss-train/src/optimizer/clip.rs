//! How large gradients are, and the learning rates of updates that are clipped by them.

use tch::{Device, Kind, Tensor};

use super::step::Step;

/// The longest piece whose norm is taken at once: BLAS counts in 32 bits.
const PIECE: i64 = 1 << 30;

/// An RMS so little above 1 is 1 but for rounding, as after the first step, where v = g^2.
const ROUNDING: f64 = 1e-6;

/// The sum of the squares of a flat gradient, f64 `[]`, where the gradient is.
pub fn sum_of_squares(gradient: &Tensor) -> Tensor {
    if oss_kernels::supports(gradient) {
        return Tensor::from(oss_kernels::sum_of_squares(gradient));
    }
    let len = gradient.size()[0];
    let squares: Vec<Tensor> = (0..len)
        .step_by(PIECE as usize)
        .map(|at| gradient.narrow(0, at, PIECE.min(len - at)))
        .map(|piece| piece.dot(&piece).to_kind(Kind::Double))
        .collect();
    Tensor::stack(&squares, 0).sum(Kind::Double)
}

/// The learning rate of each parameter of a unit: the step's divided by max(1, RMS), where RMS^2 is the mean of g^2 / v
/// (StableAdamW, arXiv:2304.13013, section 3.2). `sums` are the sums of g^2 / v and `counts` their elements, both f64, of
/// whole tensors on any number of ranks.
///
/// On a GPU the rates stay there, f32 as its fused step wants them, so that nothing waits for it.
pub fn clipped_lrs(step: &Step, sums: &Tensor, counts: &Tensor) -> Tensor {
    let rms = (sums / counts).sqrt();
    let ones = rms.ones_like();
    let lrs = rms.where_self(&rms.gt(1.0 + ROUNDING), &ones).reciprocal() * step.lr.double_value(&[]);
    if lrs.device() == Device::Cpu { lrs } else { lrs.to_kind(Kind::Float) }
}
