//! One region of a rank's slice of a unit, its matrices or the rest: weights, moments, and what updates them.

use std::ops::Range;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::blockwise::BLOCK;
use super::moments::{Moments, StateTensor};
use super::step::Step;
use super::storage::StorageConfig;
use super::update_rule::{ParamGroup, RegionShape, UnitStep, UpdateRule};

/// Elements that are widened at once where weights or moments are not f32.
pub(super) const SCRATCH: i64 = 1 << 24;

/// Bytes in use for each of them while a moment is coded: weights, moments, draws, and eight steps of the coding.
const SCRATCH_BYTES: u64 = (4 + 8) * 4;

/// Elements of one parameter in a region.
#[derive(Clone, Debug)]
pub struct ParamSlice {
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

impl ParamSlice {
    /// Its range of a tensor of the parameter with one number for each `per` elements.
    pub fn range_by(&self, per: i64) -> Range<i64> {
        self.first / per..(self.first + self.len + per - 1) / per
    }

    /// Its elements and what is empty up to the end of the last block.
    pub(super) fn whole_blocks(&self) -> i64 {
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

/// Flat buffers of one length, whole blocks: weights in f32 or bf16, and their moments.
#[derive(Debug)]
pub struct Region {
    /// The weights.
    pub weights: Tensor,
    pub(super) moments: Moments,
    rule: &'static dyn UpdateRule,
}

impl Region {
    /// `len` weights of `group` on `device` and their moments, all zero.
    pub fn zeros(len: i64, group: ParamGroup, storage: &StorageConfig, device: Device) -> Self {
        let (rule, state) = (storage.rule(group), storage.state_dtype(group));
        let moments = match device {
            Device::Cuda(_) if storage.optimizer_cpu_offload => {
                Moments::zeros(rule.moments(), state, len, Device::Cpu)
                    .map(|tensor| tensor.pin_memory(device))
            }
            _ => Moments::zeros(rule.moments(), state, len, device),
        };
        Self { weights: Tensor::zeros([len], (storage.weights_kind(group), device)), moments, rule }
    }

    /// The moments' tensors.
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        self.moments.state()
    }

    /// Whether weights and moments are kept in f32.
    pub(super) fn is_wide(&self) -> bool {
        self.weights.kind() == Kind::Float && self.moments.are_wide()
    }

    /// As [`UpdateRule::add_rms_ratios`].
    pub fn add_rms_ratios(&self, gradient: &Tensor, params: &[ParamSlice], step: &Step, sums: &Tensor) {
        self.rule.add_rms_ratios(self, gradient, params, step, sums);
    }

    /// As [`UpdateRule::step`].
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn step(&mut self, gradient: &Tensor, params: &[ParamSlice], unit: UnitStep<'_>) -> Result<()> {
        self.rule.step(self, gradient, params, unit)
    }

    /// The moments on the weights' device: themselves, or copies of what lives on the host.
    pub(super) fn moments_there(&self) -> Moments {
        let device = self.weights.device();
        self.moments.map(|tensor| oss_torch::to_device(tensor, device))
    }

    /// Keeps `moments`, which visited the weights' device where they live elsewhere.
    pub(super) fn bring_home(&mut self, moments: &Moments) -> Result<()> {
        let device = self.weights.device();
        if self.moments.state().iter().any(|home| home.tensor.device() != device) {
            self.moments.copy_from(moments)?;
        }
        Ok(())
    }
}

impl RegionShape {
    /// Bytes of the f32 copies that a step makes of a rank's weights and moments where they are kept in fewer bits.
    pub(super) fn widened_bytes(&self) -> u64 {
        if self.storage.is_wide(self.group) {
            return 0;
        }
        SCRATCH_BYTES * (self.elements / self.shards).min(SCRATCH.unsigned_abs())
    }
}
