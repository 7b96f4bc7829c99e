//! One region of a rank's slice of a unit, its matrices or the rest: weights, moments, and their step.

use std::borrow::Cow;
use std::ops::Range;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::blockwise::BLOCK;
use super::moments::{Moments, Stored};
use super::stochastic::{Draws, Noise, round_to_bf16};
use super::{Step, host};
use crate::experiment::{OptimizerKind, StatePrecision};
use crate::torch;

/// Elements that are widened at once where weights or moments are not f32.
pub const SCRATCH: i64 = 1 << 24;

/// Bytes in use for each of them while a moment is coded: weights, moments, draws, and eight steps of the coding.
pub const SCRATCH_BYTES: i64 = (4 + 8) * 4;

/// Elements of one parameter in a region.
#[derive(Clone, Debug)]
pub struct Part {
    /// Name of the parameter.
    pub name: String,
    /// Which parameter of the unit.
    pub slot: usize,
    /// First element in the region, at the start of a block.
    pub offset: i64,
    /// Number of elements; up to the end of the last block, the region is empty.
    pub len: i64,
    /// The parameter's element that comes first.
    pub first: i64,
    /// Whether weights decay.
    pub decays: bool,
}

impl Part {
    /// Its range of a tensor of the parameter with one number for each `per` elements.
    pub fn range_by(&self, per: i64) -> Range<i64> {
        self.first / per..(self.first + self.len + per - 1) / per
    }

    /// Its elements and what is empty up to the end of the last block.
    fn whole_blocks(&self) -> i64 {
        (self.len + BLOCK - 1) / BLOCK * BLOCK
    }

    /// Its elements, whole blocks, in pieces that are worked on at once: (offset in the region, elements, first element of
    /// the parameter).
    pub(super) fn pieces(&self) -> impl Iterator<Item = (i64, i64, i64)> {
        let len = self.whole_blocks();
        (0..len)
            .step_by(SCRATCH as usize)
            .map(move |at| (self.offset + at, SCRATCH.min(len - at), self.first + at))
    }
}

/// How a region is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keeping {
    /// Kind of the weights, f32 or bf16.
    pub weights: Kind,
    /// What steps them.
    pub optimizer: OptimizerKind,
    /// Numbers of the moments.
    pub state: StatePrecision,
    /// Whether the moments stay in host memory.
    pub offload_moments: bool,
}

/// Flat buffers of one length, whole blocks: weights in f32 or bf16, and their moments.
#[derive(Debug)]
pub struct Region {
    /// The weights.
    pub weights: Tensor,
    pub(super) moments: Moments,
}

impl Region {
    /// `len` weights on `device` and their moments, all zero.
    pub fn zeros(len: i64, keeping: Keeping, device: Device) -> Self {
        let Keeping { weights, optimizer, state, offload_moments } = keeping;
        let moments = match device {
            Device::Cuda(_) if offload_moments => {
                Moments::zeros(optimizer, state, len, Device::Cpu).map(|tensor| tensor.pin_memory(device))
            }
            _ => Moments::zeros(optimizer, state, len, device),
        };
        Self { weights: Tensor::zeros([len], (weights, device)), moments }
    }

    /// The moments' tensors.
    pub fn state(&self) -> Vec<Stored<'_>> {
        self.moments.stored()
    }

    fn is_wide(&self) -> bool {
        self.weights.kind() == Kind::Float && self.moments.are_wide()
    }

    /// One step of AdamW of `parts` by their gradient, f32 and flat like the region, which is used up. `lrs` are the learning
    /// rates of the unit's parameters, where they are not all that of the step.
    pub fn step(
        &mut self,
        gradient: &Tensor,
        parts: &[Part],
        step: &Step,
        lrs: Option<&Tensor>,
    ) -> Result<()> {
        let device = self.weights.device();
        // Moments that live on the host visit the device for the step; others are there already.
        let mut moments = self.moments.map(|tensor| torch::send(tensor, device));
        let parts = match lrs {
            None if self.is_wide() => Cow::Owned(merged(parts)),
            _ => Cow::Borrowed(parts),
        };
        for part in parts.iter() {
            let lr = lrs.map_or_else(|| step.lr.shallow_clone(), |lrs| lrs.get(part.slot as i64));
            if self.is_wide() {
                let [mut weights, mut gradient] =
                    [&self.weights, gradient].map(|flat| flat.narrow(0, part.offset, part.len));
                let mut wide = moments.narrow(part.offset, part.len).wide();
                adamw(&mut weights, &mut gradient, &mut wide, &lr, part.decays, step)?;
            } else if device == Device::Cpu {
                let (len, draws) = (part.whole_blocks(), Draws::new(step.seed, step.count, &part.name));
                let mut weights = self.weights.narrow(0, part.offset, len);
                let gradient = gradient.narrow(0, part.offset, len);
                let (mut moments, lr) = (moments.narrow(part.offset, len), lr.double_value(&[]));
                host::step(&mut weights, &gradient, &mut moments, (draws, part.first), lr, part.decays, step);
            } else {
                self.step_narrow(gradient, &mut moments, part, &lr, step)?;
            }
        }
        self.bring_home(&moments)
    }

    /// Keeps `moments`, which visited the weights' device where they live elsewhere.
    pub(super) fn bring_home(&mut self, moments: &Moments) -> Result<()> {
        let device = self.weights.device();
        if self.moments.stored().iter().any(|home| home.tensor.device() != device) {
            self.moments.copy_from(moments)?;
        }
        Ok(())
    }

    /// The same for one part on any device, by copies in f32 that are rounded back.
    pub(super) fn step_narrow(
        &self,
        gradient: &Tensor,
        moments: &mut Moments,
        part: &Part,
        lr: &Tensor,
        step: &Step,
    ) -> Result<()> {
        let draws = Draws::new(step.seed, step.count, &part.name);
        for (offset, len, first) in part.pieces() {
            let [mut weights, mut gradient] =
                [&self.weights, gradient].map(|flat| flat.narrow(0, offset, len));
            let mut moments = moments.narrow(offset, len);
            let (mut wide_weights, mut wide) = (weights.to_kind(Kind::Float), moments.wide());
            adamw(&mut wide_weights, &mut gradient, &mut wide, lr, part.decays, step)?;
            let draws = draws.tensor(first, len, weights.device());
            moments.store(&wide, &draws);
            if weights.kind() != Kind::Float {
                round_to_bf16(&wide_weights, &draws, Noise::Weight, &mut weights);
            }
        }
        Ok(())
    }

    /// Adds to `sums`, f64 with one number a parameter of the unit, what [`super::shortened`] takes: the sum over each
    /// part's elements of g^2 / v, with g the gradient and v the second moment after the step, its bias corrected. Nothing
    /// where Muon steps, whose steps have one length whatever the gradient.
    pub fn add_surprise(&self, gradient: &Tensor, parts: &[Part], step: &Step, sums: &Tensor) {
        if !self.moments.has_second() {
            return;
        }
        for part in parts {
            let mut sum = sums.get(part.slot as i64);
            let _ = if gradient.device() == Device::Cpu {
                let (offset, len) = (part.offset, part.whole_blocks());
                let gradient = gradient.narrow(0, offset, len);
                sum.g_add_scalar_(host::surprise(&gradient, &mut self.moments.narrow(offset, len), step))
            } else {
                sum.g_add_(&self.surprise_by_tensors(gradient, part, step))
            };
        }
    }

    /// The sum for one part, f64 `[]`, on any device.
    pub(super) fn surprise_by_tensors(&self, gradient: &Tensor, part: &Part, step: &Step) -> Tensor {
        let ([_, beta], eps) = (step.optimizer.betas, step.optimizer.eps);
        let correction = 1.0 - beta.powf(step.count as f64);
        let mut sum = Tensor::zeros([], (Kind::Double, gradient.device()));
        for (offset, len, _) in part.pieces() {
            let square = (gradient.narrow(0, offset, len) / &step.divisor).square_();
            let second = self.moments.narrow(offset, len).map(|tensor| torch::send(tensor, square.device()));
            let expected = (second.wide_second() * beta + &square * (1.0 - beta)) / correction;
            sum += (square / expected.clamp_min(eps * eps)).sum(Kind::Double);
        }
        sum
    }
}

/// Neighbours of one weight decay as one, with what lies between them.
fn merged(parts: &[Part]) -> Vec<Part> {
    let mut merged: Vec<Part> = Vec::new();
    for part in parts {
        match merged.last_mut() {
            Some(last) if last.decays == part.decays => last.len = part.offset + part.len - last.offset,
            _ => merged.push(part.clone()),
        }
    }
    merged
}

/// libtorch's fused AdamW in place, all in f32.
fn adamw(
    weights: &mut Tensor,
    gradient: &mut Tensor,
    [exp_avg, exp_avg_sq]: &mut [Tensor; 2],
    lr: &Tensor,
    decays: bool,
    step: &Step,
) -> Result<()> {
    let (hyper, divisor) = (step.hyper(decays), Some(&step.divisor));
    torch::fused_adamw(weights, gradient, exp_avg, exp_avg_sq, &step.count_there, lr, hyper, divisor)
}
