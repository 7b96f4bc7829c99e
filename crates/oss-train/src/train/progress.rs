//! Training progress: the non-tensor state of a checkpoint.

use serde::{Deserialize, Serialize};

use crate::optimizer::LossScale;

/// The best evaluation so far, by validation loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The step it was measured at.
    pub step: u64,
    /// Validation loss, in nats per token.
    pub val_loss: f64,
}

/// Work still pending for a step whose checkpoint was written early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Whether the step's evaluation is pending.
    pub evaluate: bool,
    /// Whether the step's samples are pending.
    pub sample: bool,
}

/// The non-tensor state of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps completed, which is also the number of batches consumed.
    pub step: u64,
    /// Optimizer steps applied, not counting skipped ones.
    pub applied: u64,
    /// Skipped steps since the last applied one.
    #[serde(default)]
    pub skipped_in_a_row: u64,
    /// The loss scale, used in f16.
    pub loss_scale: LossScale,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Work still pending for the last step.
    pub due: Due,
    /// `train.steps` at the time of writing: a wsd decay is specific to its target.
    pub target_steps: u64,
}
