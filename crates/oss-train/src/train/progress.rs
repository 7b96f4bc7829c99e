//! Training progress: the non-tensor state of a checkpoint.

use serde::{Deserialize, Serialize};

use crate::optimizer::LossScale;
use oss_config::Evaluate;

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
    /// Evaluations since the best one.
    #[serde(default)]
    pub evaluations_since_best: u64,
    /// Work still pending for the last step.
    pub due: Due,
    /// `train.steps` at the time of writing: a wsd decay is specific to its target.
    pub target_steps: u64,
}

impl Progress {
    /// Takes the validation loss of the current step into account.
    pub fn evaluated(&mut self, val_loss: f64) {
        let is_best = self.best.is_none_or(|best| val_loss < best.val_loss);
        if is_best && val_loss.is_finite() {
            self.best = Some(Best { step: self.step, val_loss });
            self.evaluations_since_best = 0;
        } else {
            self.evaluations_since_best += 1;
        }
    }

    /// Whether early stopping ends training here.
    pub fn is_out_of_patience(&self, evaluate: &Evaluate) -> bool {
        evaluate.patience.is_some_and(|patience| self.evaluations_since_best >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::Precision;

    #[test]
    fn patience_counts_evaluations_since_the_best() {
        let mut progress = Progress {
            step: 0,
            applied: 0,
            skipped_in_a_row: 0,
            loss_scale: LossScale::new(Precision::F32),
            best: None,
            evaluations_since_best: 0,
            due: Due::default(),
            target_steps: 100,
        };
        let patience = |patience| Evaluate { patience, ..Evaluate::default() };
        let mut ends = Vec::new();
        for loss in [3.0, 2.0, 2.0, f64::NAN, 1.5, 1.6, 1.7] {
            progress.step += 10;
            progress.evaluated(loss);
            ends.push(progress.is_out_of_patience(&patience(Some(2))));
            assert!(!progress.is_out_of_patience(&patience(None)));
        }
        assert_eq!(ends, [false, false, false, true, false, false, true]);
        assert_eq!(progress.best, Some(Best { step: 50, val_loss: 1.5 }));
    }
}
