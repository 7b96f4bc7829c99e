//! What people see of a training run: metrics, TensorBoard, the progress bar.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::trainer::{Progress as State, StepReport};
use crate::evaluation::Evaluation;
use crate::experiment::Experiment;
use crate::generation::SampledText;
use crate::monitor::{MetricsLog, Progress, TensorBoard, Unit};
use crate::run_dir::RunDir;

/// The logs of one run.
pub struct Watch {
    metrics: MetricsLog,
    tensorboard: TensorBoard,
    bar: Progress,
    flops_per_token: f64,
    every_steps: u64,
    last_step: u64,
    interval: Interval,
}

/// Since the last logged step.
struct Interval {
    start: Instant,
    tokens: i64,
}

impl Watch {
    /// Opens the logs of `run_dir`, cut back to the step that training goes on from.
    pub fn open(run_dir: &RunDir, experiment: &Experiment, step: u64, flops_per_token: f64) -> Result<Self> {
        let resumed = (step > 0).then_some(step);
        let metrics = MetricsLog::open(&run_dir.metrics(), Some(step))?;
        let tensorboard = TensorBoard::open(&run_dir.tensorboard(), resumed.map(|step| step + 1))?;
        let bar = Progress::new("train", Some(experiment.train.steps), Unit::Steps);
        bar.set_position(step);
        Ok(Self {
            metrics,
            tensorboard,
            bar,
            flops_per_token,
            every_steps: experiment.log.every_steps,
            last_step: experiment.train.steps,
            interval: Interval { start: Instant::now(), tokens: 0 },
        })
    }

    /// A step was done: the bar moves, and every so often a line is written.
    pub fn step(&mut self, state: &State, report: &StepReport) -> Result<()> {
        let step = state.step;
        self.interval.tokens += report.pass.tokens;
        self.bar.set_position(step);
        if step != 1 && step != self.last_step && !step.is_multiple_of(self.every_steps) {
            return Ok(());
        }
        let tokens_per_second = self.interval.tokens as f64 / self.interval.start.elapsed().as_secs_f64();
        self.interval = Interval { start: Instant::now(), tokens: 0 };
        self.bar.message(format!("loss {:.4}, {tokens_per_second:.0} tokens/s", report.pass.loss));
        let experts = report.pass.loads.len().max(1);
        let load = report.pass.loads.iter().map(load_of).collect::<Vec<_>>();
        let dead: u64 = load.iter().map(|layer| layer.dead).sum();
        let fullest = load.iter().map(|layer| layer.fullest).fold(0.0, f64::max);
        let mut line = Map::new();
        for (name, value) in [
            ("loss", json!(report.pass.loss)),
            ("lr", json!(report.lr)),
            ("grad_norm", json!(report.grad_norm)),
            ("balance_loss", json!(report.pass.balance_loss)),
            ("dead_experts", json!(dead)),
            ("max_load", json!(fullest)),
            ("tokens_per_second", json!(tokens_per_second)),
            ("tflops", json!(tokens_per_second * self.flops_per_token / 1e12)),
            ("peak_memory_bytes", json!(peak_memory_bytes(report))),
        ] {
            line.insert(name.into(), value);
        }
        if report.skipped {
            line.insert("skipped".into(), json!(true));
        }
        if state.loss_scale.scale != 1.0 {
            line.insert("loss_scale".into(), json!(state.loss_scale.scale));
        }
        for (name, value) in &line {
            if let Some(number) = value.as_f64() {
                self.tensorboard.scalar(&format!("train/{name}"), step, number);
            }
        }
        if experts > 1 {
            for (layer, load) in load.iter().enumerate() {
                self.tensorboard.scalar(&format!("experts/max_load_layer_{layer:02}"), step, load.fullest);
            }
        }
        self.write(step, &line)
    }

    /// An evaluation after `step`.
    pub fn evaluation(&mut self, step: u64, evaluation: &Evaluation, bytes_per_token: f64) -> Result<()> {
        let mut line = Map::new();
        for (name, value) in [
            ("val_loss", json!(evaluation.loss)),
            ("val_perplexity", json!(evaluation.perplexity)),
            ("val_nats_per_byte", json!(evaluation.loss / bytes_per_token)),
            ("val_dead_experts", json!(evaluation.dead_experts)),
            ("val_max_load", json!(evaluation.max_load)),
        ] {
            if let Some(number) = value.as_f64() {
                let name = name.trim_start_matches("val_");
                self.tensorboard.scalar(&format!("validation/{name}"), step, number);
            }
            line.insert(name.into(), value);
        }
        self.write(step, &line)?;
        self.pause()
    }

    /// Samples after `step`.
    pub fn samples(&mut self, step: u64, samples: &[SampledText]) -> Result<()> {
        for (index, sample) in samples.iter().enumerate() {
            let text = format!("**{}**{}", sample.prompt, sample.text);
            self.tensorboard.text(&format!("samples/{index}"), step, &text);
        }
        self.pause()
    }

    /// Makes what is written so far survive a power cut, before a checkpoint relies on it.
    pub fn sync(&mut self) -> Result<()> {
        self.tensorboard.flush();
        self.metrics.sync()?;
        self.pause()
    }

    /// Time that is no training does not count as such.
    fn pause(&mut self) -> Result<()> {
        if self.interval.tokens == 0 {
            self.interval.start = Instant::now();
        }
        Ok(())
    }

    fn write(&mut self, step: u64, line: &Map<String, Value>) -> Result<()> {
        self.metrics.append(step, line)?;
        self.tensorboard.flush();
        Ok(())
    }
}

struct LayerLoad {
    dead: u64,
    /// The busiest expert's share over the uniform share.
    fullest: f64,
}

fn load_of(load: &crate::model::Load) -> LayerLoad {
    let counts = Vec::<f64>::try_from(load.counts.to_kind(tch::Kind::Double)).unwrap_or_default();
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    LayerLoad {
        dead: counts.iter().filter(|&&count| count == 0.0).count() as u64,
        fullest: counts.iter().copied().fold(0.0, f64::max) / mean,
    }
}

/// Most memory held so far: the device's on CUDA, the process's otherwise.
fn peak_memory_bytes(report: &StepReport) -> u64 {
    match report.pass.loads.first().map(|load| load.counts.device()) {
        Some(tch::Device::Cuda(index)) => crate::torch::cuda_peak_bytes(index).unwrap_or(0).unsigned_abs(),
        _ => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        }
    }
}
