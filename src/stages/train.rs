//! The train stage: trains the weights.

use anyhow::Result;

use oss_train::model::{Initial, WeightSource};
use oss_train::train::{self, Inputs, Outcome};

/// Trains to `train.steps`, or until a stop is requested. The initial weights are `initial`, or random; they are read
/// only if there is no checkpoint to resume from.
///
/// # Errors
/// The loss is not finite, the disk is full, or a device fails; checkpoints written so far are kept.
pub fn train(inputs: &Inputs<'_>, initial: Option<Box<dyn WeightSource>>) -> Result<Outcome> {
    let experiment = inputs.experiment;
    let random = || Box::new(Initial::new(&experiment.model, experiment.run.seed));
    let mut initial = initial.unwrap_or_else(|| random());
    train::train(inputs, initial.as_mut())
}
