//! Many trials of one experiment: which there are, who works on them, and what came of it.
//!
//! * [`trials`] (`trials`, `trial`): the values of each trial and the run that it is. A trial's id is its run's id, so a
//!   changed base is another trial, and an old result never stands for a new one.
//! * `ledger`: numbers and decisions, written down once; `claim`: one process at a time works on a trial; `worker`:
//!   that process. How far a trial has come is read from its run, so a killed sweep loses nothing but the steps since
//!   the last checkpoint.
//! * [`TrialStatus`]: how a trial stands.
//! * `halving`: who goes on to the next rung.
//! * [`Results`] (`results`, `hparams`): what is shown.

mod claim;
mod error;
mod halving;
mod hparams;
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
pub use results::{Group, Results, Row, cell};
pub use status::TrialStatus;
pub use trial::Trial;
pub use trials::trials;

use claim::Claim;
use ledger::Entry;
use oss_config::{LastStage, Overrides, Resolved, Sweep};
use oss_runs::run_dir::{Host, RunStatus, RunsDir, SweepDir};
use status::Known;
use worker::Share;

/// A sweep with its trials.
pub struct Plan {
    /// Name: the folder of its runs.
    pub name: String,
    /// The section of the file.
    pub sweep: Sweep,
    /// Every trial, in the order of the file.
    pub trials: Vec<Trial>,
    dir: SweepDir,
    runs: RunsDir,
    shares: Vec<Share>,
}

impl Plan {
    /// The trials of the file that `resolved` was read from with the same `overrides`; so many run at once as `sweep`
    /// says.
    ///
    /// # Errors
    /// [`SweepError`]; what is wrong with the experiment of a trial.
    pub fn new(resolved: &Resolved, overrides: &Overrides, sweep: Sweep, runs: &RunsDir) -> Result<Self> {
        let name = resolved.experiment.run.name.clone().unwrap_or_default();
        let (parallel, ranks) = (sweep.parallel(), resolved.experiment.sharding.ranks);
        let cores = Host::this().cores as u64;
        let threads = (parallel > 1).then(|| (cores / (parallel * ranks)).max(1) as usize);
        let trials = trial::of(&resolved.file, overrides, &sweep, runs, threads)?;
        let shares = shares(parallel, ranks, &resolved.experiment.train.device)?;
        Ok(Self { dir: runs.sweep(&name), name, sweep, trials, runs: runs.clone(), shares })
    }

    /// How every trial stands now; nothing is written.
    ///
    /// # Errors
    /// A damaged ledger or manifest.
    pub fn results(&self) -> Result<Results> {
        self.results_of(&ledger::read(&self.dir)?, &mut BTreeSet::new())
    }

    /// `finished` are trials that are known to be done; those that are found to be are added.
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
                claimed: Claim::is_held(&self.dir, &id),
            };
            rows.push(Row {
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

    /// Whether a trial goes no further: it failed, or halving has ended it, unless the file asks for that no longer.
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

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.root()
    }

    /// The last stage of a whole trial.
    fn until(&self) -> LastStage {
        self.sweep.until
    }
}

/// The GPUs of each of `parallel` trials.
fn shares(parallel: u64, ranks: u64, device: &str) -> Result<Vec<Share>, SweepError> {
    let gpus =
        if matches!(device, "auto" | "cuda") && Cuda::is_available() { Cuda::device_count() } else { 0 };
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    share_out(parallel, ranks, gpus.unsigned_abs(), visible.as_deref())
}

fn share_out(parallel: u64, ranks: u64, gpus: u64, visible: Option<&str>) -> Result<Vec<Share>, SweepError> {
    if gpus == 0 || parallel == 1 {
        return Ok(vec![Share::default(); parallel as usize]);
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
        .map(|names| Share { gpus: Some(names.join(",")) })
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
        assert_eq!(gpus(2, 1, 0, None).unwrap(), ["", ""], "on the CPU cores are shared instead");
        assert_eq!(gpus(1, 4, 8, None).unwrap(), [""], "one trial has all");
        assert_eq!(gpus(2, 2, 5, None).unwrap(), ["0,1", "2,3"]);
        assert_eq!(gpus(3, 1, 3, Some("4, 6,GPU-7")).unwrap(), ["4", "6", "GPU-7"]);
        let error = ErrorReport::of(gpus(3, 2, 4, None).unwrap_err()).to_string();
        assert!(error.ends_with("set sweep.parallel to at most 2"), "{error}");
    }
}
