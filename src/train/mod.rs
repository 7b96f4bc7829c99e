//! Training: the loop over steps, and what happens between them.

mod batch;
mod device;
mod optimize;
mod pass;
pub mod schedule;
mod trainer;
mod unit;
mod watch;

#[cfg(test)]
mod oracle;

pub use batch::GlobalBatch;
pub use device::{device, set_up};
pub use pass::{MicroBatch, PassOptions, PassResult, forward_backward};
pub use trainer::{Best, Due, Progress, StepReport, Trainer, compute_kind};
pub use unit::{Layout, Slot, Unit};

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::checkpoint::{self, Checkpoint};
use crate::data::{Batches, Tokenizer};
use crate::evaluation::{self, evaluate};
use crate::experiment::{Experiment, ScheduleKind};
use crate::generation;
use crate::interrupt::{self, Stopped};
use crate::model::{Chain, WeightSource};
use crate::run_dir::{RunDir, write_json};
use crate::torch::guard;
use watch::Watch;

/// Text held out from training.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// Bytes of text a token stands for, on average.
    pub bytes_per_token: f64,
}

/// What training needs.
pub struct Inputs<'a> {
    /// The experiment, with `model.vocab_size` set.
    pub experiment: &'a Experiment,
    /// Where checkpoints, metrics and samples go; locked by the caller.
    pub run_dir: &'a RunDir,
    /// The training data.
    pub batches: &'a Batches,
    /// The validation data.
    pub validation: Option<Held<'a>>,
    /// For samples, and for the token that ends a document.
    pub tokenizer: &'a Tokenizer,
    /// Whether the first weights are random.
    pub from_scratch: bool,
    /// Pause after this step, without touching the schedule.
    pub stop_at_step: Option<u64>,
    /// Floating-point operations of one token, forward and backward, for TFLOP/s.
    pub flops_per_token: f64,
}

/// Where training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Steps done; a checkpoint of that step is there.
    pub step: u64,
    /// Whether that is all of `train.steps`.
    pub finished: bool,
}

/// Trains to `train.steps`, or until a stop is asked for, from the newest good checkpoint, or from the weights of
/// `initial` where there is none.
///
/// # Errors
/// When a loss is not finite, a checkpoint cannot be written, or libtorch fails; checkpoints written so far stay.
pub fn train(inputs: &Inputs<'_>, initial: &mut dyn WeightSource) -> Result<Outcome> {
    let experiment = inputs.experiment;
    let checkpoints = inputs.run_dir.checkpoints();
    set_up(&experiment.train, experiment.run.deterministic)?;
    let device = device(&experiment.train)?;
    guard(|| {
        let trainer = match start_from(&checkpoints, experiment)? {
            Some(checkpoint) => Trainer::resume(experiment, checkpoint, inputs.from_scratch, device)?,
            None => Trainer::new(experiment, initial, inputs.from_scratch, device)?,
        };
        let watch = Watch::open(inputs.run_dir, experiment, trainer.progress.step, inputs.flops_per_token)?;
        Run { inputs, checkpoints: &checkpoints, trainer, watch }.go()
    })
    .with_context(|| match checkpoint::list(&checkpoints).last() {
        Some((_, path)) => format!("training failed; the last good checkpoint is {}", path.display()),
        None => "training failed before its first checkpoint".to_owned(),
    })
}

/// The newest checkpoint that leads to the experiment's target.
///
/// A wsd decay belongs to one target: with another one, training goes on from before the decay.
fn start_from(checkpoints: &Path, experiment: &Experiment) -> Result<Option<Checkpoint>> {
    let Some(newest) = checkpoint::latest(checkpoints)? else { return Ok(None) };
    if leads_to(&newest, experiment)? {
        return Ok(Some(newest));
    }
    for (_, path) in checkpoint::list(checkpoints).into_iter().rev() {
        let checkpoint = Checkpoint::open(&path)?;
        if leads_to(&checkpoint, experiment)? {
            checkpoint.verify()?;
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

fn leads_to(checkpoint: &Checkpoint, experiment: &Experiment) -> Result<bool> {
    let progress: Progress = serde_json::from_value(checkpoint.state().clone())
        .with_context(|| format!("the training state in {}", checkpoint.path().display()))?;
    let target = experiment.train.steps;
    Ok(match experiment.schedule.kind {
        ScheduleKind::Wsd if progress.target_steps != target => {
            progress.step <= schedule::decay_start(&experiment.schedule, progress.target_steps)
                && progress.step <= schedule::decay_start(&experiment.schedule, target)
        }
        _ => progress.step <= target,
    })
}

/// One process's part of a training run.
struct Run<'a> {
    inputs: &'a Inputs<'a>,
    checkpoints: &'a Path,
    trainer: Trainer<'a>,
    watch: Watch,
}

impl Run<'_> {
    fn go(mut self) -> Result<Outcome> {
        let experiment = self.inputs.experiment;
        let train = &experiment.train;
        let started = Instant::now();
        let limit = train.max_minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
        let target = self.inputs.stop_at_step.map_or(train.steps, |step| step.min(train.steps));
        if checkpoint::list(self.checkpoints).is_empty() {
            // What the run started from, for those who repeat or compare it; and a disk that cannot hold a checkpoint is
            // found now, not after an hour.
            self.save()?;
        }
        if self.pay_due()?.is_some() {
            return Ok(self.outcome());
        }
        while self.trainer.progress.step < target {
            let batch = GlobalBatch::of_step(self.inputs.batches, train, self.trainer.progress.step)?;
            let report = self.trainer.step(&batch, self.document_end())?;
            let step = self.trainer.progress.step;
            self.watch.step(&self.trainer.progress, &report)?;

            let on = |every: u64| every > 0 && step.is_multiple_of(every);
            let improved = self.trainer.progress.best;
            self.trainer.progress.due = Due {
                evaluate: self.inputs.validation.is_some() && on(experiment.evaluate.every_steps),
                sample: on(experiment.sample.every_steps),
            };
            if limit.is_some_and(|limit| started.elapsed() >= limit) {
                interrupt::request();
            }
            let stopped = self.pay_due()?.is_some() || interrupt::requested();
            let best = experiment.checkpoint.keep_best && self.trainer.progress.best != improved;
            if stopped
                || best
                || step == target
                || on(experiment.checkpoint.every_steps)
                || self.before_decay()
            {
                self.save()?;
            }
            if stopped {
                break;
            }
        }
        let outcome = self.outcome();
        if outcome.finished {
            self.watch.finish();
        }
        Ok(outcome)
    }

    fn outcome(&self) -> Outcome {
        let step = self.trainer.progress.step;
        Outcome { step, finished: step >= self.inputs.experiment.train.steps }
    }

    /// The evaluation and the samples that the last step owes; `Some` when a stop was asked for before they were done.
    fn pay_due(&mut self) -> Result<Option<Stopped>> {
        let paid = self.try_pay_due();
        match paid {
            Ok(()) => Ok(None),
            Err(error) => error.downcast::<Stopped>().map(Some),
        }
    }

    fn try_pay_due(&mut self) -> Result<()> {
        let step = self.trainer.progress.step;
        if self.trainer.progress.due.evaluate {
            if let Some(held) = self.inputs.validation {
                self.evaluate(step, held)?;
            }
            self.trainer.progress.due.evaluate = false;
        }
        if self.trainer.progress.due.sample {
            self.sample(step)?;
            self.trainer.progress.due.sample = false;
        }
        Ok(())
    }

    fn evaluate(&mut self, step: u64, held: Held<'_>) -> Result<()> {
        let experiment = self.inputs.experiment;
        let options = evaluation::Options {
            sequence_length: experiment.train.sequence_length as usize,
            max_tokens: experiment.evaluate.max_tokens,
            end_of_text: self.document_end(),
        };
        let evaluation = evaluate(&self.chain(), held.tokens, options, |_| Ok(interrupt::check()?))?;
        let better = self.trainer.progress.best.is_none_or(|best| evaluation.loss < best.val_loss);
        if better && evaluation.loss.is_finite() {
            self.trainer.progress.best = Some(Best { step, val_loss: evaluation.loss });
        }
        self.watch.evaluation(step, &evaluation, held.bytes_per_token)
    }

    fn sample(&mut self, step: u64) -> Result<()> {
        let settings = &self.inputs.experiment.sample;
        let samples =
            generation::sample(&self.chain(), self.inputs.tokenizer, settings, |_| Ok(interrupt::check()?))?;
        let path = self.inputs.run_dir.samples().join(format!("step-{step:08}.json"));
        write_json(&path, &samples).with_context(|| format!("writing {}", path.display()))?;
        self.watch.samples(step, &samples);
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let experiment = self.inputs.experiment;
        let progress = &self.trainer.progress;
        self.watch.sync()?;
        let state = serde_json::to_value(progress)?;
        checkpoint::save(self.checkpoints, progress.step, &self.trainer.entries(), &state)?;
        let protected: Vec<u64> = match experiment.schedule.kind {
            ScheduleKind::Wsd => vec![schedule::decay_start(&experiment.schedule, experiment.train.steps)],
            _ => Vec::new(),
        };
        let best = progress.best.map(|best| best.step);
        self.drop_abandoned_decay()?;
        self.watch.saved();
        checkpoint::prune(self.checkpoints, &experiment.checkpoint, best, &protected)?;
        Ok(())
    }

    /// Deletes checkpoints of a wsd decay that another target left behind, now that a newer one replaces them.
    fn drop_abandoned_decay(&self) -> Result<()> {
        for (step, path) in checkpoint::list(self.checkpoints) {
            if step > self.trainer.progress.step
                && !leads_to(&Checkpoint::open(&path)?, self.inputs.experiment)?
            {
                checkpoint::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Whether this is the last step that a longer wsd run can go on from.
    fn before_decay(&self) -> bool {
        let experiment = self.inputs.experiment;
        experiment.schedule.kind == ScheduleKind::Wsd
            && self.trainer.progress.step
                == schedule::decay_start(&experiment.schedule, experiment.train.steps)
    }

    fn document_end(&self) -> Option<i64> {
        let masked = self.inputs.experiment.train.document_mask;
        masked.then(|| i64::from(self.inputs.tokenizer.end_of_text()))
    }

    fn chain(&self) -> Chain<'_> {
        Chain { model: &self.inputs.experiment.model, weights: &self.trainer, kind: self.trainer.kind() }
    }
}
