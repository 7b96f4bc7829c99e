//! Runs the trials of a sweep.
//!
//! * [`trials`] (`trials`, `trial`): the values of each trial, and its run. A trial's id is its run's id, so a changed
//!   base experiment gives another trial, and an old result is never taken for a new one.
//! * `ledger`: trial numbers and decisions, recorded once; `lease`: only one process works on a trial at a time;
//!   `worker`: that process. The progress of a trial is read from its run, so a killed sweep loses only the steps since
//!   the last checkpoint.
//! * [`TrialStatus`]: the state of a trial.
//! * `halving`: which trials are promoted to the next rung.
//! * [`Results`] (`results`, `hparams`): the output.

mod error;
mod halving;
mod hparams;
mod lease;
mod ledger;
mod results;
mod scheduler;
mod status;
mod trial;
mod trials;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use tch::Cuda;

pub use error::SweepError;
pub use results::{Group, Results, TrialResult, cell};
pub use status::TrialStatus;
pub use trial::Trial;
pub use trials::trials;

use lease::Lease;
use ledger::Entry;
use oss_config::{LastStage, Overrides, Resolved, Sweep};
use oss_runs::run_dir::{Host, RunStatus, RunsDir, SweepDir};
use status::Known;
use worker::GpuAssignment;

/// A sweep with its trials.
pub struct Plan {
    /// Its name, which is the folder of its runs.
    pub name: String,
    /// The `[sweep]` section of the file.
    pub sweep: Sweep,
    /// All trials, in the order of the file.
    pub trials: Vec<Trial>,
    dir: SweepDir,
    runs: RunsDir,
    shares: Vec<GpuAssignment>,
}

impl Plan {
    /// The trials of the file that `resolved` was loaded from, with the same `overrides`. `sweep` sets how many run in
    /// parallel.
    ///
    /// # Errors
    /// [`SweepError`]; the experiment of a trial is invalid.
    pub fn new(resolved: &Resolved, overrides: &Overrides, sweep: Sweep, runs: &RunsDir) -> Result<Self> {
        let name = resolved.experiment.run.name.clone().unwrap_or_default();
        let (parallel, ranks) = (sweep.parallel(), resolved.experiment.sharding.ranks);
        let cores = Host::this().cores as u64;
        let threads = (parallel > 1).then(|| (cores / (parallel * ranks)).max(1) as usize);
        let trials = trial::of(&resolved.file, overrides, &sweep, runs, threads)?;
        let shares = shares(parallel, ranks, &resolved.experiment.train.device)?;
        Ok(Self { dir: runs.sweep(&name), name, sweep, trials, runs: runs.clone(), shares })
    }

    /// The current state of every trial. Read-only.
    ///
    /// # Errors
    /// The ledger or a manifest is corrupted.
    pub fn results(&self) -> Result<Results> {
        self.results_of(&ledger::read(&self.dir)?, &mut BTreeSet::new())
    }

    /// `finished` are the trials known to be done; newly finished ones are added.
    fn results_of(
        &self,
        entries: &BTreeMap<String, Entry>,
        finished: &mut BTreeSet<usize>,
    ) -> Result<Results> {
        let mut next = entries.values().map(|entry| entry.number).max().unwrap_or(0);
        let mut rows = Vec::with_capacity(self.trials.len());
        for (index, trial) in self.trials.iter().enumerate() {
            let id = trial.id();
            let entry = entries.get(&id);
            let number = entry.map_or_else(
                || {
                    next += 1;
                    next
                },
                |entry| entry.number,
            );
            let known = Known {
                failed: entry.is_some_and(|entry| entry.failed.is_some()),
                ended: entry.is_some_and(|entry| self.is_out(entry)),
                finished: self.is_finished(index, finished)?,
                claimed: Lease::is_held(&self.dir, &id),
            };
            rows.push(TrialResult {
                trial: number,
                run: id,
                status: TrialStatus::of(RunStatus::read(trial.run()), known),
                values: trial.values.clone(),
                metric: self.sweep.metric,
                direction: self.sweep.direction(),
                value: trial.metric(self.sweep.metric).filter(|value| value.is_finite()),
                step: trial.steps_taken(),
                steps: trial.steps(),
                seconds: trial.seconds(),
                error: entry.and_then(|entry| entry.failed.clone()),
            });
        }
        rows.sort_by_key(|row| row.trial);
        Ok(Results::new(self.name.clone(), self.sweep.metric, self.sweep.direction(), rows))
    }

    /// Whether a trial does not continue: it failed, or halving has ended it and is still enabled in the file.
    fn is_out(&self, entry: &Entry) -> bool {
        entry.failed.is_some() || (entry.ended && self.sweep.halving.is_some())
    }

    fn is_finished(&self, index: usize, known: &mut BTreeSet<usize>) -> Result<bool> {
        if known.contains(&index) {
            return Ok(true);
        }
        let is_finished = self.trials[index].is_finished(self.sweep.until)?;
        if is_finished {
            known.insert(index);
        }
        Ok(is_finished)
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        self.dir.root()
    }

    /// The last stage of a complete trial.
    fn until(&self) -> LastStage {
        self.sweep.until
    }
}

/// The GPUs for each of `parallel` trials.
fn shares(parallel: u64, ranks: u64, device: &str) -> Result<Vec<GpuAssignment>, SweepError> {
    let gpus =
        if matches!(device, "auto" | "cuda") && Cuda::is_available() { Cuda::device_count() } else { 0 };
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    share_out(parallel, ranks, gpus.unsigned_abs(), visible.as_deref())
}

fn share_out(
    parallel: u64,
    ranks: u64,
    gpus: u64,
    visible: Option<&str>,
) -> Result<Vec<GpuAssignment>, SweepError> {
    if gpus == 0 || parallel == 1 {
        return Ok(vec![GpuAssignment::default(); parallel as usize]);
    }
    let each = gpus / parallel;
    if each < ranks {
        return Err(SweepError::TooParallel { parallel, gpus, ranks });
    }
    let names: Vec<String> = match visible {
        Some(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
        None => (0..gpus).map(|gpu| gpu.to_string()).collect(),
    };
    Ok(names
        .chunks(each as usize)
        .take(parallel as usize)
        .map(|names| GpuAssignment { gpus: Some(names.join(",")) })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    #[test]
    fn gpus_are_shared_out() {
        let gpus = |parallel, ranks, gpus, visible| {
            let shares = share_out(parallel, ranks, gpus, visible)?;
            Ok::<_, SweepError>(
                shares.into_iter().map(|share| share.gpus.unwrap_or_default()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(gpus(2, 1, 0, None).unwrap(), ["", ""], "on the CPU, cores are divided instead");
        assert_eq!(gpus(1, 4, 8, None).unwrap(), [""], "one trial has all");
        assert_eq!(gpus(2, 2, 5, None).unwrap(), ["0,1", "2,3"]);
        assert_eq!(gpus(3, 1, 3, Some("4, 6,GPU-7")).unwrap(), ["4", "6", "GPU-7"]);
        let error = ErrorReport::of(gpus(3, 2, 4, None).unwrap_err()).to_string();
        assert!(error.ends_with("set sweep.parallel to at most 2"), "{error}");
    }
}
