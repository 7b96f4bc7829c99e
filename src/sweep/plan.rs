//! The trials of a sweep, and their current state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::gpu_assignment::{GpuAssignment, assign_gpus};
use super::lease::Lease;
use super::ledger::{self, Entry};
use super::status::Known;
use super::{Results, Trial, TrialResult, TrialStatus, trial};
use oss_config::{LastStage, Overrides, Resolved, Sweep};
use oss_runs::run_dir::{Host, RunStatus, RunsDir, SweepDir};

/// A sweep with its trials.
pub struct Plan {
    /// Its name, which is the folder of its runs.
    pub name: String,
    /// The `[sweep]` section of the file.
    pub sweep: Sweep,
    /// All trials, in the order of the file.
    pub trials: Vec<Trial>,
    pub(super) dir: SweepDir,
    pub(super) runs: RunsDir,
    pub(super) gpus: Vec<GpuAssignment>,
}

impl Plan {
    /// The trials of the file that `resolved` was loaded from, with the same `overrides`. `sweep` sets how many run in
    /// parallel.
    ///
    /// # Errors
    /// [`SweepError`](super::SweepError); the experiment of a trial is invalid.
    pub fn new(resolved: &Resolved, overrides: &Overrides, sweep: Sweep, runs: &RunsDir) -> Result<Self> {
        let name = resolved.experiment.run.name.clone().unwrap_or_default();
        let (parallel, ranks) = (sweep.parallel(), resolved.experiment.sharding.ranks);
        let cores = Host::this().cores as u64;
        let threads = (parallel > 1).then(|| (cores / (parallel * ranks)).max(1) as usize);
        let trials = trial::of(&resolved.file, overrides, &sweep, runs, threads)?;
        let gpus = assign_gpus(parallel, ranks, &resolved.experiment.train.device)?;
        Ok(Self { dir: runs.sweep(&name), name, sweep, trials, runs: runs.clone(), gpus })
    }

    /// The current state of every trial. Read-only.
    ///
    /// # Errors
    /// The ledger or a manifest is corrupted.
    pub fn results(&self) -> Result<Results> {
        self.results_of(&ledger::read(&self.dir)?, &mut BTreeSet::new())
    }

    /// `finished` are the trials known to be done; newly finished ones are added.
    pub(super) fn results_of(
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
    pub(super) fn is_out(&self, entry: &Entry) -> bool {
        entry.failed.is_some() || (entry.ended && self.sweep.halving.is_some())
    }

    pub(super) fn is_finished(&self, index: usize, known: &mut BTreeSet<usize>) -> Result<bool> {
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
    pub(super) fn until(&self) -> LastStage {
        self.sweep.until
    }
}
