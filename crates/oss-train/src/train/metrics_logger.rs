//! User-visible output of a training run: metrics, TensorBoard, the progress bar.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tch::{Device, Kind};

use super::hparams::hparams;
use super::progress::Progress;
use super::train_step::StepReport;
use crate::evaluation::Evaluation;
use crate::generation::SampledText;
use crate::model::ExpertLoad;
use oss_config::Experiment;
use oss_config::error::Hint;
use oss_runs::monitor::{self, Recorder, Unit, resident_peak_bytes};
use oss_runs::run_dir::RunDir;
use oss_torch::cuda_peak_bytes;

/// The logs of one run.
pub struct MetricsLogger {
    recorder: Recorder,
    bar: monitor::Progress,
    device: Device,
    flops_per_token: f64,
    every_steps: u64,
    last_step: u64,
    interval: Interval,
}

/// Accumulated since the last logged step.
struct Interval {
    start: Instant,
    tokens: i64,
}

impl MetricsLogger {
    /// Opens the logs of `run_dir`, truncated to the step that training resumes from, for a model on `device` that may
    /// have validation text.
    pub fn open(
        run_dir: &RunDir,
        experiment: &Experiment,
        step: u64,
        device: Device,
        flops_per_token: f64,
        has_validation: bool,
    ) -> Result<Self> {
        let mut recorder = Recorder::open(run_dir, (step > 0).then_some(step))?;
        remove_samples_after(run_dir, step)?;
        recorder.tensorboard().hparams(&hparams(run_dir, experiment, has_validation)?);
        Ok(Self {
            recorder,
            bar: monitor::Progress::resumed("train", Some(experiment.train.steps), Unit::Steps, step),
            device,
            flops_per_token,
            every_steps: experiment.log.every_steps,
            last_step: experiment.train.steps,
            interval: Interval { start: Instant::now(), tokens: 0 },
        })
    }

    /// Records a step: advances the progress bar and logs metrics at the configured interval.
    pub fn log_step(&mut self, progress: &Progress, report: &StepReport) -> Result<()> {
        let step = progress.step;
        self.interval.tokens += report.tokens;
        self.bar.set_position(step);
        if step != 1 && step != self.last_step && !step.is_multiple_of(self.every_steps) {
            return Ok(());
        }
        let tokens_per_second = self.interval.tokens as f64 / self.interval.start.elapsed().as_secs_f64();
        self.restart_interval();
        self.bar.message(format!("loss {:.4}, {tokens_per_second:.0} tokens/s", report.loss));
        let loads = report.loads.iter().map(LayerLoad::of).collect::<Result<Vec<_>>>()?;
        let fullest: Vec<f64> = loads.iter().map(|layer| layer.fullest).collect();
        let dead: Vec<u64> = loads.iter().map(|layer| layer.dead).collect();
        let mut line = fields([
            ("loss", json!(report.loss)),
            ("lr", json!(report.lr)),
            ("grad_norm", json!(report.grad_norm)),
            ("balance_loss", json!(ExpertLoad::mean_balance_loss(&report.loads))),
            ("dead_experts", json!(dead.iter().sum::<u64>())),
            ("dead_experts_layers", json!(dead)),
            ("max_load", json!(fullest.iter().copied().fold(0.0, f64::max))),
            ("max_load_layers", json!(fullest)),
            ("tokens_per_second", json!(tokens_per_second)),
            ("tflops", json!(tokens_per_second * self.flops_per_token / 1e12)),
            ("peak_memory_bytes", json!(peak_memory_bytes(self.device))),
        ]);
        if report.skipped {
            line.insert("skipped".into(), json!(true));
        }
        if progress.loss_scale.scale != 1.0 {
            line.insert("loss_scale".into(), json!(progress.loss_scale.scale));
        }
        Ok(self.recorder.record(step, &line)?)
    }

    /// Logs the evaluation after `step`.
    pub fn log_evaluation(&mut self, step: u64, evaluation: &Evaluation, bytes_per_token: f64) -> Result<()> {
        let line = fields([
            ("val_loss", json!(evaluation.loss)),
            ("val_perplexity", json!(evaluation.perplexity)),
            ("val_nats_per_byte", json!(evaluation.loss / bytes_per_token)),
            ("val_dead_experts", json!(evaluation.dead_experts)),
            ("val_max_load", json!(evaluation.max_load)),
        ]);
        self.recorder.record(step, &line)?;
        tracing::info!("{}, validation loss {:.4}", self.bar.status(), evaluation.loss);
        self.restart_interval();
        Ok(())
    }

    /// Logs the samples after `step`.
    pub fn log_samples(&mut self, step: u64, samples: &[SampledText]) {
        for (index, sample) in samples.iter().enumerate() {
            let text = format!("**{}**{}", sample.prompt, sample.text);
            self.recorder.tensorboard().text(&format!("samples/{index}"), step, &text);
        }
        self.restart_interval();
    }

    /// Marks the run as complete.
    pub fn finish(&mut self) {
        self.recorder.tensorboard().finish();
    }

    /// Syncs the logs to disk, so that they survive a power failure, before a checkpoint relies on them.
    pub fn sync(&mut self) -> Result<()> {
        Ok(self.recorder.sync()?)
    }

    /// Records that a checkpoint was written.
    pub fn log_checkpoint(&mut self) {
        self.restart_interval();
    }

    /// Excludes time not spent training from the throughput.
    fn restart_interval(&mut self) {
        self.interval = Interval { start: Instant::now(), tokens: 0 };
    }
}

/// Removes the samples of steps that will be rerun: the rerun might not write them again.
fn remove_samples_after(run_dir: &RunDir, step: u64) -> Result<()> {
    for (_, path) in run_dir.step_samples().into_iter().filter(|(written, _)| *written > step) {
        fs::remove_file(&path)
            .with_context(|| format!("cannot remove {}", path.display()))
            .hint("check its permissions")?;
    }
    Ok(())
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

struct LayerLoad {
    dead: u64,
    /// The busiest expert's load relative to the uniform load.
    fullest: f64,
}

impl LayerLoad {
    fn of(load: &ExpertLoad) -> Result<Self> {
        let counts = Vec::<f64>::try_from(load.counts.to_kind(Kind::Double))?;
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        Ok(Self {
            dead: counts.iter().filter(|&&count| count == 0.0).count() as u64,
            fullest: counts.iter().copied().fold(0.0, f64::max) / mean,
        })
    }
}

/// Peak memory so far: the device's on CUDA, otherwise the process's.
fn peak_memory_bytes(device: Device) -> u64 {
    match device {
        Device::Cuda(index) => cuda_peak_bytes(index).unwrap_or(0).unsigned_abs(),
        _ => resident_peak_bytes(),
    }
}
