//! How far training is: what a checkpoint holds beside tensors.

use serde::{Deserialize, Serialize};

use crate::optimizer::LossScale;

/// The checkpoint of the lowest validation loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// Its loss, nats a token.
    pub val_loss: f64,
}

/// Work that a step still owes when a checkpoint was written early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The step's evaluation.
    pub evaluate: bool,
    /// The step's samples.
    pub sample: bool,
}

/// What a checkpoint holds beside tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done, which is also the number of batches used.
    pub step: u64,
    /// Optimizer steps among them: those not skipped.
    pub applied: u64,
    /// f16's loss scale.
    pub loss_scale: LossScale,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Work that the last step still owes.
    pub due: Due,
    /// `train.steps` when this was written: a wsd decay belongs to one target.
    pub target_steps: u64,
}
