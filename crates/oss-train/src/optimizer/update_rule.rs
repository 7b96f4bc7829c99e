//! What an optimizer is, to those who train and to those who plan.

use std::fmt::Debug;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::moments::MomentSpec;
use super::region::{ParamSlice, Region};
use super::step::Step;
use super::storage::StorageConfig;
use crate::distributed::{Group, Layout};

/// Parameters that one rule updates, as a unit keeps them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamGroup {
    /// The matrices of a block: projections and experts.
    BlockMatrices,
    /// The embedding or the head.
    VocabularyMatrices,
    /// Router, norms, biases and sinks, which stay f32.
    Rest,
}

impl ParamGroup {
    /// The group of the matrices of the unit that `layout` describes.
    pub fn of_matrices(layout: &Layout) -> Self {
        if layout.matrices_of_blocks() > 0 { Self::BlockMatrices } else { Self::VocabularyMatrices }
    }

    /// Whether matrices are in it.
    pub fn is_matrices(self) -> bool {
        self != Self::Rest
    }
}

/// One region of a unit, for those who plan its memory.
#[derive(Clone, Copy, Debug)]
pub struct RegionShape {
    /// What lies in it.
    pub group: ParamGroup,
    /// Elements of the whole unit's region.
    pub elements: u64,
    /// Ranks that share it.
    pub shards: u64,
    /// Where it is stepped.
    pub device: Device,
    /// How it is kept.
    pub storage: StorageConfig,
}

/// One step of a unit, as the rules of its regions see it.
#[derive(Clone, Copy, Debug)]
pub struct UnitStep<'a> {
    /// The step.
    pub step: &'a Step,
    /// The learning rate of each parameter of the unit, `[P]`, where they are not all that of the step.
    pub lrs: Option<&'a Tensor>,
    /// Where the parameters lie in the whole unit.
    pub layout: &'a Layout,
    /// Which slice of it this rank holds.
    pub shard: usize,
    /// The ranks that share the unit.
    pub row: &'a Group,
}

/// An optimizer: what it keeps of each parameter, what it moves between ranks, what it needs at once, and its step.
pub trait UpdateRule: Debug + Sync {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Whether it updates the parameters of `group`; AdamW updates what another rule does not.
    fn updates(&self, group: ParamGroup) -> bool;

    /// The moments that are kept of each element: two at most, the draws of the rounding have bits for no more.
    fn moments(&self) -> &'static [MomentSpec];

    /// The kind in which the ranks of a unit gather one number an element in each step, on `device`; none where each rank
    /// steps its slice by itself.
    fn gathered_kind(&self, _device: Device) -> Option<Kind> {
        None
    }

    /// Bytes in use at once in a step of `region`, beside weights, gradients and moments.
    fn scratch_bytes(&self, region: &RegionShape) -> u64;

    /// The peak learning rate that is usual where a model is pretrained with `flops` FLOPs; none where no fit is known.
    fn usual_lr(&self, _flops: f64) -> Option<f64> {
        None
    }

    /// Adds to `sums`, f64 with one number for each parameter of the unit, what [`super::clipped_lrs`] takes: the sum over
    /// each parameter's elements of g^2 / v, with g the gradient and v its expected square. Nothing where the length of a step
    /// does not depend on the gradient's.
    fn add_rms_ratios(
        &self,
        _region: &Region,
        _gradient: &Tensor,
        _params: &[ParamSlice],
        _step: &Step,
        _sums: &Tensor,
    ) {
    }

    /// One step of the `params` that lie in `region`, by their gradient, f32 and flat like the region, which is used up.
    ///
    /// # Errors
    /// Another rank is gone.
    fn step(
        &self,
        region: &mut Region,
        gradient: &Tensor,
        params: &[ParamSlice],
        unit: UnitStep<'_>,
    ) -> Result<()>;
}
