//! Measures how fast this device trains an experiment, in a few steps on random tokens.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tch::Device;

use super::dry_run::random_batch;
use super::{Flags, Trainer, configure_torch, device};
use crate::distributed::Mesh;
use crate::libtorch_error::catch_torch_panic;
use crate::model::Initial;
use oss_config::Experiment;
use oss_runs::interrupt;

/// Untimed steps, in which memory is allocated and kernels are selected.
const WARMUP_STEPS: u64 = 2;

/// Minimum number of timed steps, unless time runs out.
const MIN_STEPS: u64 = 3;

/// Measures training throughput in tokens per second over all ranks, from the median step time of one simulated rank.
/// Runs for about `budget` in total, with at least one step beyond the warm-up. Communication between ranks is simulated
/// and takes no time, as in a dry run.
///
/// # Errors
/// Fails if the device does not exist or a stop is requested.
pub fn calibrate(experiment: &Experiment, budget: Duration) -> Result<f64> {
    let mut experiment = experiment.clone();
    // Random tokens and simulated collectives make losses meaningless, and some are not finite.
    experiment.train.tolerate_non_finite();
    let experiment = &experiment;
    let device = device(&experiment.train, 0)?;
    // The ranks that are not simulated would use their own portion of the cores.
    let ranks_here = if device == Device::Cpu { experiment.sharding.ranks as usize } else { 1 };
    configure_torch(&experiment.train, experiment.run.deterministic, ranks_here)?;
    let mesh = Mesh::simulated(&experiment.sharding, 0, device)?;
    catch_torch_panic(|| {
        let mut source = Initial::new(&experiment.model, experiment.run.seed);
        let mut trainer = Trainer::new(experiment, &mut source, true, &mesh)?;
        let mut speeds = Vec::new();
        let began = Instant::now();
        for step in 0.. {
            interrupt::check()?;
            let batch = random_batch(experiment, step).staged(&experiment.train, None, device)?;
            let start = Instant::now();
            let report = trainer.step(&batch, Flags::default)?;
            if step >= WARMUP_STEPS {
                speeds.push(report.tokens as f64 / start.elapsed().as_secs_f64());
            }
            let is_over = began.elapsed() >= budget;
            if (is_over && !speeds.is_empty())
                || (speeds.len() as u64 >= MIN_STEPS && began.elapsed() >= budget / 2)
            {
                break;
            }
        }
        speeds.sort_by(f64::total_cmp);
        match speeds.get(speeds.len() / 2) {
            Some(speed) => Ok(*speed),
            None => bail!("no step was measured"),
        }
    })
}
