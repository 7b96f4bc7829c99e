//! One region of a rank's slice of a unit (its matrices or the rest): weights, moments, and their update rule.

use std::ops::Range;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::blockwise::BLOCK;
use super::moments::{Moments, StateTensor};
use super::step::Step;
use super::storage::StorageConfig;
use super::update_rule::{ParamGroup, RegionShape, UnitStep, UpdateRule};

/// Maximum number of elements widened at a time, if weights or moments are not f32.
pub(super) const SCRATCH: i64 = 1 << 24;

/// Scratch bytes per element while a moment is encoded: weights, moments, draws, and eight intermediates of the
/// encoding.
const SCRATCH_BYTES: u64 = (4 + 8) * 4;

/// The elements of one parameter in a region.
#[derive(Clone, Debug)]
pub struct ParamSlice {
    /// Name of the parameter.
    pub name: String,
    /// The parameter's index in the unit.
    pub slot: usize,
    /// Offset of the first element in the region, on a block boundary.
    pub offset: i64,
    /// Number of elements. The rest of the last block is padding.
    pub len: i64,
    /// Index of the first element within the parameter.
    pub first: i64,
    /// Whether weight decay applies.
    pub decays: bool,
}

impl ParamSlice {
    /// The corresponding range of a tensor with one value per `per` elements of the parameter.
    pub fn range_by(&self, per: i64) -> Range<i64> {
        self.first / per..(self.first + self.len + per - 1) / per
    }

    /// The number of elements, rounded up to whole blocks.
    pub(super) fn whole_blocks(&self) -> i64 {
        (self.len + BLOCK - 1) / BLOCK * BLOCK
    }

    /// Splits the slice, rounded up to whole blocks, into pieces that are processed one at a time: (offset in the
    /// region, number of elements, index of the first element within the parameter).
    pub(super) fn pieces(&self) -> impl Iterator<Item = (i64, i64, i64)> {
        let len = self.whole_blocks();
        (0..len)
            .step_by(SCRATCH as usize)
            .map(move |at| (self.offset + at, SCRATCH.min(len - at), self.first + at))
    }
}

/// Flat buffers of equal length, in whole blocks: weights in f32 or bf16, and their moments.
#[derive(Debug)]
pub struct Region {
    /// The weights.
    pub weights: Tensor,
    pub(super) moments: Moments,
    rule: &'static dyn UpdateRule,
}

impl Region {
    /// A zeroed region of `len` weights of `group` on `device`.
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

    /// The state tensors of the moments.
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        self.moments.state()
    }

    /// Whether weights and moments are stored in f32.
    pub(super) fn is_wide(&self) -> bool {
        self.weights.kind() == Kind::Float && self.moments.are_wide()
    }

    /// See [`UpdateRule::add_rms_ratios`].
    pub fn add_rms_ratios(&self, gradient: &Tensor, params: &[ParamSlice], step: &Step, sums: &Tensor) {
        self.rule.add_rms_ratios(self, gradient, params, step, sums);
    }

    /// See [`UpdateRule::step`].
    ///
    /// # Errors
    /// Fails if another rank has exited.
    pub fn step(&mut self, gradient: &Tensor, params: &[ParamSlice], unit: UnitStep<'_>) -> Result<()> {
        self.rule.step(self, gradient, params, unit)
    }

    /// The moments on the weights' device; copies if they are offloaded to the host.
    pub(super) fn moments_on_device(&self) -> Moments {
        let device = self.weights.device();
        self.moments.map(|tensor| oss_torch::to_device(tensor, device))
    }

    /// Copies `moments` back to the host if they are offloaded.
    pub(super) fn write_back_moments(&mut self, moments: &Moments) -> Result<()> {
        let device = self.weights.device();
        if self.moments.state().iter().any(|home| home.tensor.device() != device) {
            self.moments.copy_from(moments)?;
        }
        Ok(())
    }
}

impl RegionShape {
    /// Bytes of the f32 copies that a step makes of a rank's weights and moments, if these are stored in less than f32.
    pub(super) fn widened_bytes(&self) -> u64 {
        if self.storage.is_wide(self.group) {
            return 0;
        }
        SCRATCH_BYTES * (self.elements / self.shards).min(SCRATCH.unsigned_abs())
    }
}
