//! AdamW (arXiv:1711.05101) and Muon ([`muon`]) on flat buffers, whatever the precision of weights and moments.
//!
//! Where weights and moments are f32, libtorch's fused step works on them in place. Otherwise elements are widened a piece
//! at a time, stepped in f32, and rounded at random back into what is kept ([`stochastic`], [`blockwise`]): by operations of
//! libtorch on any device ([`region`]), and in one pass on the CPU ([`host`]).

mod blockwise;
mod clip;
mod host;
mod loss_scale;
mod moments;
mod muon;
mod newton_schulz;
mod region;
mod stochastic;

#[cfg(test)]
mod tests;

pub use blockwise::BLOCK;
pub use clip::{shortened, sum_of_squares};
pub use loss_scale::LossScale;
pub use newton_schulz::product_kind;
pub use region::{Keeping, Part, Region, SCRATCH, SCRATCH_BYTES};

use tch::{Device, Kind, Tensor};

use crate::experiment::Optimizer;
use crate::torch::AdamW;

/// What one optimizer step is for every parameter.
#[derive(Debug)]
pub struct Step {
    optimizer: Optimizer,
    /// Learning rate, f64 on the CPU.
    lr: Tensor,
    /// t: 1 for the first step.
    count: u64,
    /// The same, f32 on the weights' device.
    count_there: Tensor,
    /// Divides every gradient, f32 on the weights' device.
    divisor: Tensor,
    /// Of the random rounding.
    seed: u64,
}

impl Step {
    /// The step after `applied` others, with gradients divided by `divisor`, for weights on `device`.
    pub fn new(
        optimizer: &Optimizer,
        lr: f64,
        applied: u64,
        divisor: f64,
        seed: u64,
        device: Device,
    ) -> Self {
        let count = applied + 1;
        // Filled there: a copy from here would wait for the device.
        let there = |number: f32| Tensor::full([], f64::from(number), (Kind::Float, device));
        Self {
            optimizer: optimizer.clone(),
            lr: Tensor::from(lr),
            count,
            count_there: there(count as f32),
            divisor: there(divisor as f32),
            seed,
        }
    }

    fn hyper(&self, decays: bool) -> AdamW {
        let Optimizer { betas, weight_decay, eps, .. } = self.optimizer;
        AdamW { betas, weight_decay: if decays { weight_decay } else { 0.0 }, eps }
    }
}
