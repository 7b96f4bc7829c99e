//! AdamW (arXiv:1711.05101).
//!
//! If weights and moments are f32, libtorch's fused step updates them in place. Otherwise elements are widened to f32 a
//! piece at a time, stepped, and stochastically rounded back to their storage dtype: with libtorch operations on any
//! device, and in a single pass on the CPU ([`adamw_cpu`]).

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::adamw_cpu;
use crate::optimizer::blockwise::Coding;
use crate::optimizer::moments::{MomentSpec, Moments};
use crate::optimizer::region::{ParamSlice, Region};
use crate::optimizer::step::Step;
use crate::optimizer::stochastic::{Draws, Noise, round_to_bf16};
use crate::optimizer::update_rule::{ParamGroup, RegionShape, UnitStep, UpdateRule};

/// Adam with decoupled weight decay.
#[derive(Debug)]
pub struct AdamW;

impl UpdateRule for AdamW {
    fn name(&self) -> &'static str {
        "AdamW"
    }

    fn updates(&self, _group: ParamGroup) -> bool {
        true
    }

    fn moments(&self) -> &'static [MomentSpec] {
        &[
            MomentSpec { name: "exp_avg", coding: Coding::First },
            MomentSpec { name: "exp_avg_sq", coding: Coding::Second },
        ]
    }

    fn scratch_bytes(&self, region: &RegionShape) -> u64 {
        region.widened_bytes()
    }

    /// The fit of DeepSeek LLM (arXiv:2401.02954, section 3.1), valid from 1e17 to 2e19 FLOPs.
    fn usual_lr(&self, flops: f64) -> Option<f64> {
        Some(0.3118 * flops.powf(-0.125))
    }

    /// In g^2 / v, v is the bias-corrected second moment after the step.
    fn add_rms_ratios(
        &self,
        region: &Region,
        gradient: &Tensor,
        params: &[ParamSlice],
        step: &Step,
        sums: &Tensor,
    ) {
        for param in params {
            let mut sum = sums.get(param.slot as i64);
            let _ = if gradient.device() == Device::Cpu {
                let (offset, len) = (param.offset, param.whole_blocks());
                let gradient = gradient.narrow(0, offset, len);
                sum.g_add_scalar_(adamw_cpu::rms_ratio(
                    &gradient,
                    &mut region.moments.narrow(offset, len),
                    step,
                ))
            } else {
                sum.g_add_(&rms_ratio_by_tensors(region, gradient, param, step))
            };
        }
    }

    fn step(
        &self,
        region: &mut Region,
        gradient: &Tensor,
        params: &[ParamSlice],
        unit: UnitStep<'_>,
    ) -> Result<()> {
        update(region, gradient, params, unit.step, unit.lrs)
    }
}

/// Steps `params` by their gradient, f32 and flat like the region, which is consumed. `lrs` are the learning rates of
/// the unit's parameters, if they differ from that of the step.
fn update(
    region: &mut Region,
    gradient: &Tensor,
    params: &[ParamSlice],
    step: &Step,
    lrs: Option<&Tensor>,
) -> Result<()> {
    let device = region.weights.device();
    let mut moments = region.moments_on_device();
    let params = match lrs {
        None if region.is_wide() => Cow::Owned(merged(params)),
        _ => Cow::Borrowed(params),
    };
    for param in params.iter() {
        let lr = lrs.map_or_else(|| step.lr.shallow_clone(), |lrs| lrs.get(param.slot as i64));
        if region.is_wide() {
            let [mut weights, mut gradient] =
                [&region.weights, gradient].map(|flat| flat.narrow(0, param.offset, param.len));
            let mut wide = moments.narrow(param.offset, param.len).wide();
            fused(&mut weights, &mut gradient, &mut wide, &lr, param.decays, step)?;
        } else if device == Device::Cpu {
            let (len, draws) = (param.whole_blocks(), Draws::new(step.seed, step.count, &param.name));
            let mut weights = region.weights.narrow(0, param.offset, len);
            let gradient = gradient.narrow(0, param.offset, len);
            let (mut moments, lr) = (moments.narrow(param.offset, len), lr.double_value(&[]));
            let draws = (draws, param.first);
            adamw_cpu::step(&mut weights, &gradient, &mut moments, draws, lr, param.decays, step);
        } else {
            step_by_tensors(region, gradient, &mut moments, param, &lr, step)?;
        }
    }
    region.write_back_moments(&moments)
}

/// The same for one parameter on any device, using f32 copies that are rounded back.
fn step_by_tensors(
    region: &Region,
    gradient: &Tensor,
    moments: &mut Moments,
    param: &ParamSlice,
    lr: &Tensor,
    step: &Step,
) -> Result<()> {
    let draws = Draws::new(step.seed, step.count, &param.name);
    for (offset, len, first) in param.pieces() {
        let [mut weights, mut gradient] = [&region.weights, gradient].map(|flat| flat.narrow(0, offset, len));
        let mut moments = moments.narrow(offset, len);
        let (mut wide_weights, mut wide) = (weights.to_kind(Kind::Float), moments.wide());
        fused(&mut wide_weights, &mut gradient, &mut wide, lr, param.decays, step)?;
        let draws = draws.tensor(first, len, weights.device());
        moments.store(&wide, &draws);
        if weights.kind() != Kind::Float {
            round_to_bf16(&wide_weights, &draws, Noise::Weight, &mut weights);
        }
    }
    Ok(())
}

/// The sum of g^2 / v for one parameter, f64 `[]`, on any device.
fn rms_ratio_by_tensors(region: &Region, gradient: &Tensor, param: &ParamSlice, step: &Step) -> Tensor {
    let ([_, beta], eps) = (step.optimizer.betas, step.optimizer.eps);
    let correction = 1.0 - beta.powf(step.count as f64);
    let mut sum = Tensor::zeros([], (Kind::Double, gradient.device()));
    for (offset, len, _) in param.pieces() {
        let square = (gradient.narrow(0, offset, len) / &step.divisor).square_();
        let moments =
            region.moments.narrow(offset, len).map(|tensor| oss_torch::to_device(tensor, square.device()));
        let expected = (moments.wide_at(1) * beta + &square * (1.0 - beta)) / correction;
        sum += (square / expected.clamp_min(eps * eps)).sum(Kind::Double);
    }
    sum
}

/// Merges adjacent parameters with the same weight decay, including the padding between them.
fn merged(params: &[ParamSlice]) -> Vec<ParamSlice> {
    let mut merged: Vec<ParamSlice> = Vec::new();
    for param in params {
        match merged.last_mut() {
            Some(last) if last.decays == param.decays => last.len = param.offset + param.len - last.offset,
            _ => merged.push(param.clone()),
        }
    }
    merged
}

/// libtorch's fused AdamW, in place and entirely in f32.
fn fused(
    weights: &mut Tensor,
    gradient: &mut Tensor,
    [exp_avg, exp_avg_sq]: &mut [Tensor; 2],
    lr: &Tensor,
    decays: bool,
    step: &Step,
) -> Result<()> {
    let (hyper, divisor) = (step.hyper(decays), Some(&step.divisor));
    oss_torch::fused_adamw(weights, gradient, exp_avg, exp_avg_sq, &step.count_on_device, lr, hyper, divisor)
}
