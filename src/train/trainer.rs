//! A model in training: its units, how far it is, and one step.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::batch::GlobalBatch;
use super::optimizer::{LossScale, Step, sum_of_squares};
use super::pass::{PassOptions, PassResult, forward_backward};
use super::schedule;
use super::unit::{Holding, Unit};
use super::units::Units;
use crate::checkpoint::{Checkpoint, Entry};
use crate::distributed::Mesh;
use crate::experiment::{Experiment, NonFinite, Precision, Update};
use crate::model::WeightSource;

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
    /// Mean loss, nats a token, over all ranks.
    pub loss: f64,
    /// Loads and tokens.
    pub pass: PassResult,
    /// Learning rate.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// The weights were left alone: a loss or gradient was not finite.
    pub skipped: bool,
    /// What any rank says of itself at the end of the step.
    pub flags: Flags,
}

/// What a rank tells the others at the end of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It was asked to stop.
    pub stop: bool,
    /// It is still writing a checkpoint.
    pub writing: bool,
}

/// A model in training.
pub struct Trainer<'a> {
    experiment: &'a Experiment,
    units: Units<'a>,
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
        mesh: &'a Mesh,
    ) -> Result<Self> {
        let units = Units::load(&experiment.model, source, mesh, Holding::of(experiment))?;
        let progress = Progress {
            step: 0,
            applied: 0,
            loss_scale: LossScale::new(experiment.train.precision),
            best: None,
            due: Due::default(),
            target_steps: experiment.train.steps,
        };
        let balance_loss = experiment.train.balance_loss(from_scratch);
        Ok(Self { experiment, units, progress, balance_loss })
    }

    /// The state that `checkpoint` holds, whatever the ranks that wrote it.
    pub fn resume(
        experiment: &'a Experiment,
        mut checkpoint: Checkpoint,
        from_scratch: bool,
        mesh: &'a Mesh,
    ) -> Result<Self> {
        let mut trainer = Self::new(experiment, &mut checkpoint, from_scratch, mesh)?;
        trainer.units.slices_mut()?.iter_mut().try_for_each(|unit| unit.load_moments(&mut checkpoint))?;
        trainer.progress = serde_json::from_value(checkpoint.state().clone())
            .with_context(|| format!("the training state in {}", checkpoint.path().display()))?;
        Ok(trainer)
    }

    /// This rank's part of what a checkpoint keeps, on whatever device it is. The replicas hold the same: the first one's
    /// is kept.
    pub fn entries(&self) -> Vec<Entry> {
        match self.units.mesh().replica {
            0 => self.units.slices().iter().flat_map(|unit| unit.entries()).collect(),
            _ => Vec::new(),
        }
    }

    /// The units and what they are now.
    pub fn units(&self) -> &Units<'a> {
        &self.units
    }

    /// The kind of the matrix products.
    pub fn kind(&self) -> Kind {
        compute_kind(self.experiment.train.precision)
    }

    /// One optimizer step on this rank's share of a batch. `end_of_text` keeps documents apart; `flags` is asked at the end
    /// of the step.
    ///
    /// # Errors
    /// When a loss or gradient is not finite and the experiment does not skip such steps; when another rank is gone.
    pub fn step(
        &mut self,
        batch: &GlobalBatch,
        end_of_text: Option<i64>,
        flags: impl Fn() -> Flags,
    ) -> Result<StepReport> {
        let _no_grad = tch::no_grad_guard();
        let Experiment { model, optimizer, train, .. } = self.experiment;
        let mesh = self.units.mesh();
        mesh.at_step(self.progress.step + 1);
        let loss_scale = self.progress.loss_scale.scale;
        let options = PassOptions {
            kind: self.kind(),
            recompute: train.recompute,
            balance_loss: self.balance_loss,
            loss_scale,
        };
        let lr = optimizer.lr * schedule::share(&self.experiment.schedule, train.steps, self.progress.step);
        let (seed, applied) = (self.experiment.run.seed, self.progress.applied);
        let step_by = |divisor| Step::new(optimizer, lr, applied, divisor, seed, mesh.device());
        let in_backward = optimizer.update == Update::InBackward;
        if in_backward {
            self.units.update_in_backward(step_by(loss_scale));
        }
        let micro_batches = batch.micro_batches(train, end_of_text, mesh.device());
        let pass = forward_backward(model, &mut self.units, &micro_batches, options)?;
        // Replicas hold the same gradients: the first one's count.
        let squares = if mesh.replica == 0 { self.squares(&pass) } else { 0.0 };
        let Flags { stop, writing } = flags();
        let [stop, writing] = [stop, writing].map(|flag| f64::from(u8::from(flag)));
        let [loss, squares, stop, writing] =
            mesh.sum([pass.loss, squares, stop, writing], "losses and gradient norms")?;
        let grad_norm = squares.sqrt() / loss_scale;
        let finite = loss.is_finite() && grad_norm.is_finite();
        let overflow = loss.is_finite() && self.progress.loss_scale.update(!finite);
        let is_spoilt = in_backward && loss.is_finite() && !finite;
        if finite {
            if !in_backward {
                let shrink = optimizer.clip_norm().map_or(1.0, |clip| (grad_norm / clip).max(1.0));
                let step = step_by(shrink * loss_scale);
                self.units
                    .slices_mut()?
                    .iter_mut()
                    .try_for_each(|unit| unit.step(&step, None, &mesh.reduce))?;
            }
            self.progress.applied += 1;
        } else if is_spoilt || (!overflow && train.non_finite == NonFinite::Stop) {
            let otherwise = match is_spoilt {
                true => "set optimizer.update = \"step\", which sees the norm before it changes the weights",
                false => "set train.non_finite = \"skip\"",
            };
            bail!(
                "step {}: the loss is {loss} and the gradient norm {grad_norm}, on the batch with digest {}; lower \
                 optimizer.lr, look at the data, or {otherwise}",
                self.progress.step + 1,
                batch.digest()
            );
        }
        let flags = Flags { stop: stop > 0.0, writing: writing > 0.0 };
        self.progress.step += 1;
        self.progress.target_steps = train.steps;
        Ok(StepReport { loss, pass, lr, grad_norm, skipped: !finite, flags })
    }

    /// The sum of the squares of this rank's gradients; NaN where there was no backward pass.
    fn squares(&self, pass: &PassResult) -> f64 {
        let read = |squares: &Tensor| squares.double_value(&[]);
        match (&pass.squares, self.experiment.optimizer.update) {
            (Some(squares), _) => read(squares),
            (None, Update::InBackward) => f64::NAN,
            (None, Update::Step) => {
                let squares = |unit: &Unit| sum_of_squares(&unit.gradient);
                let all: Vec<Tensor> = self.units.slices().iter().map(squares).collect();
                read(&Tensor::stack(&all, 0).sum(Kind::Double))
            }
        }
    }
}

/// The kind of the matrix products in a precision.
pub fn compute_kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    }
}
