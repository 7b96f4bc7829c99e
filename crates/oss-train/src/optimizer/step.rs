//! What one optimizer step is for every parameter.

use tch::{Device, Kind, Tensor};

use oss_config::Optimizer;
use oss_torch::AdamWOptions;

/// What one optimizer step is for every parameter.
#[derive(Debug)]
pub struct Step {
    /// The hyperparameters.
    pub(super) optimizer: Optimizer,
    /// Learning rate, f64 on the CPU.
    pub(super) lr: Tensor,
    /// t: 1 for the first step.
    pub(super) count: u64,
    /// The same, f32 on the weights' device.
    pub(super) count_there: Tensor,
    /// Divides every gradient, f32 on the weights' device.
    pub(super) divisor: Tensor,
    /// Of the stochastic rounding.
    pub(super) seed: u64,
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

    /// AdamW's hyperparameters for a parameter whose weights decay, or do not.
    pub(super) fn hyper(&self, decays: bool) -> AdamWOptions {
        let Optimizer { betas, weight_decay, eps, .. } = self.optimizer;
        AdamWOptions { betas, weight_decay: if decays { weight_decay } else { 0.0 }, eps }
    }
}
