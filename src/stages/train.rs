//! train: tokens to weights.

use anyhow::Result;

use oss_train::model::{Initial, WeightSource};
use oss_train::train::{self, Inputs, Outcome};

/// Trains to `train.steps`, or until a stop is asked for. The first weights are `initial`, or random; they are read
/// only where there is no checkpoint to go on from.
///
/// # Errors
/// A loss that is not finite, a disk that is full, a device that fails; checkpoints written so far stay.
pub fn train(inputs: &Inputs<'_>, initial: Option<Box<dyn WeightSource>>) -> Result<Outcome> {
    let experiment = inputs.experiment;
    let random = || Box::new(Initial::new(&experiment.model, experiment.run.seed));
    let mut initial = initial.unwrap_or_else(|| random());
    train::train(inputs, initial.as_mut())
}
