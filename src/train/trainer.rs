//! A model in training: its units, how far it is, and one step.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::batch::GlobalBatch;
use super::optimize::{self, LossScale};
use super::pass::{PassOptions, PassResult, forward_backward};
use super::schedule;
use super::unit::Unit;
use crate::checkpoint::{Checkpoint, Entry};
use crate::experiment::{Experiment, NonFinite, Precision};
use crate::model::{WeightSource, Weights, num_units};

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

/// What one step did.
#[derive(Debug)]
pub struct StepReport {
    /// Losses and loads.
    pub pass: PassResult,
    /// Learning rate.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// The weights were left alone: a loss or gradient was not finite.
    pub skipped: bool,
}

/// A model in training.
pub struct Trainer<'a> {
    experiment: &'a Experiment,
    units: Vec<Unit>,
    device: Device,
    /// How far it is.
    pub progress: Progress,
    balance_loss: f64,
}

impl<'a> Trainer<'a> {
    /// Step 0, with weights from `source`; `from_scratch` turns the balancing loss on where the experiment is silent.
    pub fn new(
        experiment: &'a Experiment,
        source: &mut dyn WeightSource,
        from_scratch: bool,
        device: Device,
    ) -> Result<Self> {
        let kind = compute_kind(experiment.train.precision);
        let units = (0..num_units(&experiment.model))
            .map(|index| Unit::new(&experiment.model, index, source, device, kind))
            .collect::<Result<_>>()?;
        let progress = Progress {
            step: 0,
            applied: 0,
            loss_scale: LossScale::new(experiment.train.precision),
            best: None,
            due: Due::default(),
            target_steps: experiment.train.steps,
        };
        let balance_loss = experiment.train.balance_loss(from_scratch);
        Ok(Self { experiment, units, device, progress, balance_loss })
    }

    /// The state that `checkpoint` holds.
    pub fn resume(
        experiment: &'a Experiment,
        mut checkpoint: Checkpoint,
        from_scratch: bool,
        device: Device,
    ) -> Result<Self> {
        let mut trainer = Self::new(experiment, &mut checkpoint, from_scratch, device)?;
        for unit in &mut trainer.units {
            for (what, flat) in [("exp_avg", &unit.exp_avg), ("exp_avg_sq", &unit.exp_avg_sq)] {
                for (spec, view) in unit.views(flat) {
                    view.shallow_clone().copy_(&checkpoint.load(&state_name(what, &spec.name))?);
                }
            }
        }
        trainer.progress = serde_json::from_value(checkpoint.state().clone())
            .with_context(|| format!("the training state in {}", checkpoint.path().display()))?;
        Ok(trainer)
    }

    /// Everything that a checkpoint keeps, on whatever device it is.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for unit in &self.units {
            for (spec, view) in unit.views(&unit.master) {
                entries.push(Entry::whole(spec.name.clone(), &view));
            }
            for (what, flat) in [("exp_avg", &unit.exp_avg), ("exp_avg_sq", &unit.exp_avg_sq)] {
                for (spec, view) in unit.views(flat) {
                    entries.push(Entry::whole(state_name(what, &spec.name), &view));
                }
            }
        }
        entries
    }

    /// The kind of the matrix products.
    pub fn kind(&self) -> Kind {
        compute_kind(self.experiment.train.precision)
    }

    /// One optimizer step on `batch`. `end_of_text` keeps documents apart.
    ///
    /// # Errors
    /// When a loss or gradient is not finite and the experiment does not skip such steps.
    pub fn step(&mut self, batch: &GlobalBatch, end_of_text: Option<i64>) -> Result<StepReport> {
        let _no_grad = tch::no_grad_guard();
        let Experiment { model, optimizer, train, .. } = self.experiment;
        let loss_scale = self.progress.loss_scale.scale;
        let options = PassOptions {
            kind: self.kind(),
            recompute: train.recompute,
            balance_loss: self.balance_loss,
            loss_scale,
        };
        let micro_batches = batch.micro_batches(train, end_of_text, self.device);
        let pass = forward_backward(model, &self.units, &micro_batches, options)?;
        let grad_norm = optimize::gradient_norm(&self.units, loss_scale);
        let lr = optimizer.lr * schedule::share(&self.experiment.schedule, train.steps, self.progress.step);
        let finite = pass.loss.is_finite() && grad_norm.is_finite();
        let overflow = pass.loss.is_finite() && self.progress.loss_scale.update(!finite);
        if finite {
            optimize::step(&mut self.units, optimizer, lr, self.progress.applied, grad_norm, loss_scale)?;
            self.progress.applied += 1;
        } else {
            if !overflow && train.non_finite == NonFinite::Stop {
                bail!(
                    "step {}: the loss is {} and the gradient norm {grad_norm}, on the batch with digest {}; lower \
                     optimizer.lr, look at the data, or set train.non_finite = \"skip\"",
                    self.progress.step + 1,
                    pass.loss,
                    batch.digest()
                );
            }
            for unit in &mut self.units {
                let _ = unit.gradient.zero_();
            }
        }
        self.progress.step += 1;
        self.progress.target_steps = train.steps;
        Ok(StepReport { pass, lr, grad_norm, skipped: !finite })
    }
}

impl Weights for Trainer<'_> {
    fn unit(&self, index: usize) -> Result<Vec<Tensor>> {
        Ok(self.units[index].tensors())
    }
}

/// Name of a parameter's optimizer state in a checkpoint.
fn state_name(what: &str, parameter: &str) -> String {
    format!("optimizer.{what}/{parameter}")
}

/// The kind of the matrix products in a precision.
pub fn compute_kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    }
}
