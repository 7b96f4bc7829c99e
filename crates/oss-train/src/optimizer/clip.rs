//! Gradient norms, and learning rates clipped by the RMS of an update.

use tch::{Device, Kind, Tensor};

use super::step::Step;

/// Maximum length of a single dot product: BLAS uses 32-bit sizes.
const PIECE: i64 = 1 << 30;

/// Tolerance for rounding: an RMS this close to 1 counts as 1, as after the first step, where v = g^2.
const ROUNDING: f64 = 1e-6;

/// The sum of the squares of a flat gradient, f64 `[]`, on the gradient's device.
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

/// The learning rate of each parameter of a unit: that of the step divided by max(1, RMS), where RMS^2 is the mean of
/// g^2 / v (StableAdamW, arXiv:2304.13013, section 3.2). `sums` are the sums of g^2 / v and `counts` the numbers of
/// elements, both f64 and for whole parameters, regardless of sharding.
///
/// On a GPU, the rates stay on the device, in f32 as the fused step expects, so that nothing synchronizes.
pub fn clipped_lrs(step: &Step, sums: &Tensor, counts: &Tensor) -> Tensor {
    let rms = (sums / counts).sqrt();
    let ones = rms.ones_like();
    let lrs = rms.where_self(&rms.gt(1.0 + ROUNDING), &ones).reciprocal() * step.lr.double_value(&[]);
    if lrs.device() == Device::Cpu { lrs } else { lrs.to_kind(Kind::Float) }
}
