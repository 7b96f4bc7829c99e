//! The settings of one optimizer step, shared by all parameters.

use tch::{Device, Kind, Tensor};

use oss_config::Optimizer;
use oss_torch::AdamWOptions;

/// The settings of one optimizer step, shared by all parameters.
#[derive(Debug)]
pub struct Step {
    /// The hyperparameters.
    pub(super) optimizer: Optimizer,
    /// Learning rate, f64 on the CPU.
    pub(super) lr: Tensor,
    /// The step number t, starting at 1.
    pub(super) count: u64,
    /// The step number as f32 on the weights' device.
    pub(super) count_on_device: Tensor,
    /// Divides every gradient, f32 on the weights' device.
    pub(super) divisor: Tensor,
    /// Seed of the stochastic rounding.
    pub(super) seed: u64,
}

impl Step {
    /// The step that follows `applied` earlier ones, with gradients divided by `divisor`, for weights on `device`.
    pub fn new(
        optimizer: &Optimizer,
        lr: f64,
        applied: u64,
        divisor: f64,
        seed: u64,
        device: Device,
    ) -> Self {
        let count = applied + 1;
        // Filled on the device: a copy from the host would synchronize.
        let there = |number: f32| Tensor::full([], f64::from(number), (Kind::Float, device));
        Self {
            optimizer: optimizer.clone(),
            lr: Tensor::from(lr),
            count,
            count_on_device: there(count as f32),
            divisor: there(divisor as f32),
            seed,
        }
    }

    /// AdamW's hyperparameters, with or without weight decay.
    pub(super) fn hyper(&self, decays: bool) -> AdamWOptions {
        let Optimizer { betas, weight_decay, eps, .. } = self.optimizer;
        AdamWOptions { betas, weight_decay: if decays { weight_decay } else { 0.0 }, eps }
    }
}
