//! The interface of an optimizer, for training and for planning.

use std::fmt::Debug;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::moments::MomentSpec;
use super::region::{ParamSlice, Region};
use super::step::Step;
use super::storage::StorageConfig;
use crate::distributed::{Group, Layout};

/// A group of parameters that one rule updates and that a unit stores together.
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
    /// The group of the matrices in the unit described by `layout`.
    pub fn of_matrices(layout: &Layout) -> Self {
        if layout.matrices_of_blocks() > 0 { Self::BlockMatrices } else { Self::VocabularyMatrices }
    }

    /// Whether the group consists of matrices.
    pub fn is_matrices(self) -> bool {
        self != Self::Rest
    }
}

/// The shape of one region of a unit, for planning memory.
#[derive(Clone, Copy, Debug)]
pub struct RegionShape {
    /// The group of its parameters.
    pub group: ParamGroup,
    /// Elements of the whole unit's region.
    pub elements: u64,
    /// Number of ranks that it is sharded over.
    pub shards: u64,
    /// The device on which it is stepped.
    pub device: Device,
    /// How it is stored.
    pub storage: StorageConfig,
}

/// One step of a unit, as passed to the rules of its regions.
#[derive(Clone, Copy, Debug)]
pub struct UnitStep<'a> {
    /// The step.
    pub step: &'a Step,
    /// The learning rate of each parameter of the unit, `[P]`, if they differ from that of the step.
    pub lrs: Option<&'a Tensor>,
    /// The offsets of the parameters in the whole unit.
    pub layout: &'a Layout,
    /// Which slice of the unit this rank holds.
    pub shard: usize,
    /// The ranks that share the unit.
    pub row: &'a Group,
}

/// An optimizer: its state, its communication between ranks, its scratch memory, and its step.
pub trait UpdateRule: Debug + Sync {
    /// The name to use in messages.
    fn name(&self) -> &'static str;

    /// Whether it updates the parameters of `group`. AdamW updates the groups that a rule declines.
    fn updates(&self, group: ParamGroup) -> bool;

    /// The moments stored per element. At most two, since a draw has rounding bits for no more.
    fn moments(&self) -> &'static [MomentSpec];

    /// The dtype in which the ranks of a unit gather one value per element in each step on `device`; `None` if each
    /// rank steps its slice independently.
    fn gathered_kind(&self, _device: Device) -> Option<Kind> {
        None
    }

    /// Peak bytes that a step of `region` needs besides weights, gradients and moments.
    fn scratch_bytes(&self, region: &RegionShape) -> u64;

    /// The usual peak learning rate for pretraining with `flops` FLOPs; `None` if no fit is known.
    fn usual_lr(&self, _flops: f64) -> Option<f64> {
        None
    }

    /// Adds the sums that [`super::clipped_lrs`] expects to `sums`, f64 with one value per parameter of the unit: over
    /// each parameter's elements, the sum of g^2 / v, with g the gradient and v its expected square. Adds nothing if
    /// the length of an update does not depend on the gradient's.
    fn add_rms_ratios(
        &self,
        _region: &Region,
        _gradient: &Tensor,
        _params: &[ParamSlice],
        _step: &Step,
        _sums: &Tensor,
    ) {
    }

    /// Steps the `params` in `region` by their gradient, f32 and flat like the region, which is consumed.
    ///
    /// # Errors
    /// Fails if another rank has exited.
    fn step(
        &self,
        region: &mut Region,
        gradient: &Tensor,
        params: &[ParamSlice],
        unit: UnitStep<'_>,
    ) -> Result<()>;
}
