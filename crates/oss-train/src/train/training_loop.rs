//! The training loop: the steps, and what happens between them.

use std::path::Path;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::batch::{GlobalBatch, StagedBatch};
use super::checkpoint_saver::CheckpointSaver;
use super::device::{configure_torch, device};
use super::metrics_logger::MetricsLogger;
use super::prefetch::Prefetcher;
use super::progress::{Due, Progress};
use super::resume::{can_reach_target, checkpoint_to_resume};
use super::train_step::{Flags, StepReport, Trainer};
use crate::checkpoint::{self, Checkpoint};
use crate::distributed::{Mesh, World};
use crate::evaluation::{self, evaluate};
use crate::generation;
use crate::libtorch_error::catch_torch_panic;
use crate::model::{Chain, WeightSource};
use crate::optimizer::schedule;
use oss_config::error::{Hint, Stopped};
use oss_config::{Experiment, ScheduleKind};
use oss_data::{Batches, Tokenizer};
use oss_runs::interrupt;
use oss_runs::run_dir::{RunDir, write_json};

/// Held-out validation text.
#[derive(Clone, Copy, Debug)]
pub struct HeldOut<'a> {
    /// The tokens of the text.
    pub tokens: &'a [u32],
    /// Average bytes of text per token.
    pub bytes_per_token: f64,
}

/// The inputs of a training run.
pub struct Inputs<'a> {
    /// The experiment, with `model.vocab_size` set.
    pub experiment: &'a Experiment,
    /// The ranks that train together, this one among them.
    pub world: &'a World,
    /// Directory for checkpoints, metrics and samples; locked by the leader.
    pub run_dir: &'a RunDir,
    /// The training data.
    pub batches: &'a Batches,
    /// The validation data.
    pub validation: Option<HeldOut<'a>>,
    /// Decodes samples and provides the end-of-text token.
    pub tokenizer: &'a Tokenizer,
    /// Whether the initial weights are random.
    pub from_scratch: bool,
    /// Pause after this step; the schedule is unaffected.
    pub stop_at_step: Option<u64>,
    /// Floating-point operations per token, forward and backward, for TFLOP/s.
    pub flops_per_token: f64,
}

/// Where training stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Steps completed; there is a checkpoint of that step.
    pub step: u64,
    /// Whether training is over: `train.steps` was reached, or `evaluate.patience` exhausted.
    pub finished: bool,
    /// Steps without an update, because the loss or the gradient was not finite.
    pub skipped: u64,
}

/// Trains until `train.steps`, until `evaluate.patience` is exhausted, or until a stop is requested. Starts from the
/// latest valid checkpoint, or from the weights of `initial` if there is none.
///
/// # Errors
/// Fails if a loss is not finite, a checkpoint cannot be written, another rank exits, or libtorch fails. Checkpoints
/// written so far are kept.
pub fn train(inputs: &Inputs<'_>, initial: &mut dyn WeightSource) -> Result<Outcome> {
    let Inputs { experiment, world, .. } = inputs;
    let checkpoints = inputs.run_dir.checkpoints();
    configure_torch(&experiment.train, experiment.run.deterministic, world.local_size())?;
    let device = device(&experiment.train, world.local_rank())?;
    catch_torch_panic(|| {
        let mesh = world.mesh(&experiment.sharding, device)?;
        tracing::debug!(
            "rank {} of {}: slice {} of {}, replica {} of {}, on {device:?}",
            world.rank(),
            world.size(),
            mesh.shard,
            mesh.shards,
            mesh.replica,
            mesh.replicas
        );
        let trainer = match checkpoint_to_resume(world, &checkpoints, experiment)? {
            Some(checkpoint) => Trainer::resume(experiment, checkpoint, inputs.from_scratch, &mesh),
            None => Trainer::new(experiment, initial, inputs.from_scratch, &mesh),
        };
        let trainer = world.all_ok(trainer)?;
        let logger = || {
            MetricsLogger::open(
                inputs.run_dir,
                experiment,
                trainer.progress.step,
                device,
                inputs.flops_per_token,
                inputs.validation.is_some(),
            )
        };
        let logger = world.is_leader().then(logger).transpose()?;
        let saver = CheckpointSaver::new(world, &mesh, &checkpoints);
        TrainingLoop { inputs, mesh: &mesh, checkpoints: &checkpoints, trainer, logger, saver }.run()
    })
    .map_err(|error| match checkpoint::list(&checkpoints).last() {
        Some((_, path)) => {
            error.context("training failed").hint(format!("the last good checkpoint is {}", path.display()))
        }
        None => error.context("training failed before its first checkpoint"),
    })
}

/// One process's part of a training run.
struct TrainingLoop<'a> {
    inputs: &'a Inputs<'a>,
    mesh: &'a Mesh,
    checkpoints: &'a Path,
    trainer: Trainer<'a>,
    /// Only the leader logs.
    logger: Option<MetricsLogger>,
    saver: CheckpointSaver<'a>,
}

impl<'a> TrainingLoop<'a> {
    fn run(mut self) -> Result<Outcome> {
        let Inputs { experiment, world, stop_at_step, .. } = *self.inputs;
        let train = &experiment.train;
        let started = Instant::now();
        let limit = train.max_minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
        let is_over_time = || limit.is_some_and(|limit| started.elapsed() >= limit);
        let target = stop_at_step.map_or(train.steps, |step| step.min(train.steps));
        let is_first = world.is_leader().then(|| checkpoint::list(self.checkpoints).is_empty());
        if world.broadcast(is_first)? {
            // Store the initial weights, so that the run can be reproduced and compared. This also detects a disk that
            // cannot hold a checkpoint now rather than an hour later.
            self.save()?;
        }
        if self.evaluate_and_sample()?.is_some() {
            self.saver.complete()?;
            return Ok(self.outcome());
        }
        if self.is_out_of_patience() {
            // By the evaluation that the checkpoint was still waiting for.
            self.save()?;
        }
        thread::scope(|scope| {
            let batches = self.prefetch(scope, target)?;
            while self.trainer.progress.step < target && !self.is_out_of_patience() {
                let report = self.trainer.step(&batches.next()?, || Flags {
                    stop: interrupt::requested() || is_over_time(),
                    writing: self.saver.is_writing(),
                })?;
                if self.after_step(&report, target)?.is_some() {
                    break;
                }
            }
            anyhow::Ok(())
        })?;
        if self.saver.is_begun() {
            self.finish_saving()?;
        }
        let outcome = self.outcome();
        if let (Some(best), true) = (self.trainer.progress.best, self.is_out_of_patience()) {
            tracing::info!(
                "stopped early at step {} of {}: {} evaluations without a lower validation loss than {:.4}, of step {}",
                outcome.step,
                experiment.train.steps,
                self.trainer.progress.evaluations_since_best,
                best.val_loss,
                best.step
            );
        }
        if let Some(logger) = self.logger.as_mut().filter(|_| outcome.finished) {
            logger.finish();
        }
        Ok(outcome)
    }

    /// Prefetches the batches of the remaining steps while the model computes.
    fn prefetch<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        target: u64,
    ) -> Result<Prefetcher<StagedBatch>>
    where
        'a: 'scope,
    {
        let Inputs { experiment, world, batches, .. } = *self.inputs;
        let (train, rank) = (&experiment.train, (world.rank(), world.size()));
        let (end_of_text, device) = (self.document_end(), self.mesh.device());
        Prefetcher::spawn(scope, self.trainer.progress.step..target, move |step| {
            GlobalBatch::rank_slice(batches, train, step, rank).staged(train, end_of_text, device)
        })
    }

    /// Logs a step, then evaluates, samples and saves if due. Returns `Some` if any rank was asked to stop.
    fn after_step(&mut self, report: &StepReport, target: u64) -> Result<Option<Stopped>> {
        let Inputs { experiment, .. } = *self.inputs;
        let step = self.trainer.progress.step;
        if let Some(logger) = &mut self.logger {
            logger.log_step(&self.trainer.progress, report)?;
        }
        if self.saver.is_begun() && !report.flags.writing {
            self.finish_saving()?;
        }

        let on = |every: u64| every > 0 && step.is_multiple_of(every);
        let best_before = self.trainer.progress.best;
        self.trainer.progress.due = Due {
            evaluate: self.inputs.validation.is_some() && on(experiment.evaluate.every_steps),
            sample: on(experiment.sample.every_steps),
        };
        if report.flags.stop {
            interrupt::request();
        }
        let stopped = self.evaluate_and_sample()?.or(report.flags.stop.then_some(Stopped));
        let is_best = experiment.checkpoint.keep_best && self.trainer.progress.best != best_before;
        if stopped.is_some()
            || is_best
            || step == target
            || self.is_out_of_patience()
            || on(experiment.checkpoint.every_steps)
            || self.is_before_decay()
        {
            self.save()?;
        }
        Ok(stopped)
    }

    fn outcome(&self) -> Outcome {
        let Progress { step, applied, .. } = self.trainer.progress;
        let finished = step >= self.inputs.experiment.train.steps || self.is_out_of_patience();
        Outcome { step, skipped: step - applied, finished }
    }

    /// Runs the pending evaluation and samples of the last step. Returns `Some` if a stop was requested before they
    /// were done.
    fn evaluate_and_sample(&mut self) -> Result<Option<Stopped>> {
        match self.try_evaluate_and_sample() {
            Ok(()) => Ok(None),
            Err(error) => error.downcast::<Stopped>().map(Some),
        }
    }

    fn try_evaluate_and_sample(&mut self) -> Result<()> {
        let step = self.trainer.progress.step;
        if self.trainer.progress.due.evaluate {
            if let Some(held_out) = self.inputs.validation {
                self.evaluate(step, held_out)?;
            }
            self.trainer.progress.due.evaluate = false;
        }
        if self.trainer.progress.due.sample {
            self.sample(step)?;
            self.trainer.progress.due.sample = false;
        }
        Ok(())
    }

    fn evaluate(&mut self, step: u64, held_out: HeldOut<'_>) -> Result<()> {
        let experiment = self.inputs.experiment;
        let options = evaluation::Options {
            sequence_length: experiment.train.sequence_length as usize,
            max_tokens: experiment.evaluate.max_tokens,
            end_of_text: self.document_end(),
        };
        let mesh = self.mesh;
        let evaluation = evaluate(&self.chain(), mesh, held_out.tokens, options, |_| mesh.check_interrupt())?;
        self.trainer.progress.evaluated(evaluation.loss);
        match &mut self.logger {
            Some(logger) => logger.log_evaluation(step, &evaluation, held_out.bytes_per_token),
            None => Ok(()),
        }
    }

    fn sample(&mut self, step: u64) -> Result<()> {
        let Inputs { experiment, tokenizer, run_dir, .. } = self.inputs;
        let mesh = self.mesh;
        let samples = generation::sample(&self.chain(), mesh, tokenizer, &experiment.sample, |_| {
            mesh.check_interrupt()
        })?;
        if let Some(logger) = &mut self.logger {
            let path = run_dir.samples_at(step);
            write_json(&path, &samples).with_context(|| format!("writing {}", path.display()))?;
            logger.log_samples(step, &samples);
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let progress = &self.trainer.progress;
        if let Some(logger) = &mut self.logger {
            logger.sync()?;
        }
        let (entries, state) = (self.trainer.entries(), serde_json::to_value(progress)?);
        if self.inputs.experiment.checkpoint.background {
            self.saver.save_in_background(progress.step, &entries, state)?;
            if let Some(logger) = &mut self.logger {
                logger.log_checkpoint();
            }
            return Ok(());
        }
        self.saver.save(progress.step, &entries, state)?;
        self.prune()
    }

    /// Completes the checkpoint that is being written in the background.
    fn finish_saving(&mut self) -> Result<()> {
        self.saver.complete()?;
        self.prune()
    }

    /// Deletes the checkpoints that the latest one supersedes.
    fn prune(&mut self) -> Result<()> {
        let Some(logger) = &mut self.logger else { return Ok(()) };
        logger.log_checkpoint();
        let experiment = self.inputs.experiment;
        let protected: Vec<u64> = match experiment.schedule.kind {
            ScheduleKind::Wsd => vec![schedule::decay_start(&experiment.schedule, experiment.train.steps)],
            _ => Vec::new(),
        };
        let best = self.trainer.progress.best.map(|best| best.step);
        self.drop_abandoned_decay()?;
        checkpoint::prune(self.checkpoints, &experiment.checkpoint, best, &protected)?;
        Ok(())
    }

    /// Deletes checkpoints of a wsd decay toward a different target, now that a newer checkpoint replaces them.
    fn drop_abandoned_decay(&self) -> Result<()> {
        for (step, path) in checkpoint::list(self.checkpoints) {
            if step > self.trainer.progress.step
                && !can_reach_target(&Checkpoint::open(&path)?, self.inputs.experiment)?
            {
                checkpoint::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Whether this is the last step that a longer wsd run can resume from.
    fn is_before_decay(&self) -> bool {
        let experiment = self.inputs.experiment;
        experiment.schedule.kind == ScheduleKind::Wsd
            && self.trainer.progress.step
                == schedule::decay_start(&experiment.schedule, experiment.train.steps)
    }

    fn is_out_of_patience(&self) -> bool {
        self.trainer.progress.is_out_of_patience(&self.inputs.experiment.evaluate)
    }

    fn document_end(&self) -> Option<i64> {
        let masked = self.inputs.experiment.train.document_mask;
        masked.then(|| i64::from(self.inputs.tokenizer.end_of_text()))
    }

    fn chain(&self) -> Chain<'_> {
        Chain {
            model: &self.inputs.experiment.model,
            weights: self.trainer.model(),
            kind: self.trainer.kind(),
        }
    }
}
