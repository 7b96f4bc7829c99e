//! The dtypes and devices in which training stores a model.

use tch::Kind;

use super::moments::moment_bytes;
use super::rules::update_rule;
use super::update_rule::{ParamGroup, UpdateRule};
use crate::model::{matmul_kind, storage_kind};
use oss_config::{Experiment, OptimizerKind, ParamDtype, StateDtype, Update};

/// The dtypes and devices in which training stores a model.
#[derive(Clone, Copy, Debug)]
pub struct StorageConfig {
    /// Dtype of the matrix products.
    pub kind: Kind,
    /// Storage dtype of the matrices.
    pub param_dtype: ParamDtype,
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Storage dtype of the matrices' moments.
    pub state_dtype: StateDtype,
    /// When weights are updated.
    pub update: Update,
    /// Whether moments are offloaded to host memory.
    pub optimizer_cpu_offload: bool,
}

impl StorageConfig {
    /// Everything in f32 and updated by AdamW, with matrix products in `kind`.
    pub fn f32(kind: Kind) -> Self {
        let (param_dtype, state_dtype) = (ParamDtype::F32, StateDtype::F32);
        let (optimizer, update) = (OptimizerKind::Adamw, Update::Step);
        Self { kind, param_dtype, optimizer, state_dtype, update, optimizer_cpu_offload: false }
    }

    /// The configuration that `experiment` specifies.
    pub fn new(experiment: &Experiment) -> Self {
        let Experiment { optimizer, train, sharding, .. } = experiment;
        Self {
            kind: matmul_kind(train.precision),
            param_dtype: train.param_dtype,
            optimizer: optimizer.kind,
            state_dtype: optimizer.state_dtype,
            update: optimizer.update,
            optimizer_cpu_offload: sharding.optimizer_cpu_offload,
        }
    }

    /// The rule that updates the parameters of `group`.
    pub fn rule(&self, group: ParamGroup) -> &'static dyn UpdateRule {
        update_rule(self.optimizer, group)
    }

    /// The storage dtype of the weights of `group`.
    pub fn weights_kind(&self, group: ParamGroup) -> Kind {
        if group.is_matrices() { storage_kind(self.param_dtype) } else { Kind::Float }
    }

    /// The storage dtype of the moments of `group`.
    pub fn state_dtype(&self, group: ParamGroup) -> StateDtype {
        if group.is_matrices() { self.state_dtype } else { StateDtype::F32 }
    }

    /// Whether weights and moments of `group` are stored in f32.
    pub fn is_wide(&self, group: ParamGroup) -> bool {
        self.weights_kind(group) == Kind::Float && self.state_dtype(group) == StateDtype::F32
    }

    /// Bytes of the moments of `elements` weights of `group`.
    pub fn state_bytes(&self, group: ParamGroup, elements: u64) -> u64 {
        let precision = self.state_dtype(group);
        self.rule(group).moments().iter().map(|_| moment_bytes(precision, elements)).sum()
    }
}
