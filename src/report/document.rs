//! The content of a report, read from the run directories.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::names::{Known, names, trial_name};
use super::run::{Limits, RunReport};
use super::{page, sweep};
use crate::sweep::Results;
use oss_runs::run_dir::RunDir;

/// Total number of map columns over all runs.
const MAP_COLUMNS: usize = 2048;

/// Maximum columns per map.
const COLUMNS: usize = 256;

/// Total size of samples over all runs, in bytes.
const SAMPLE_BYTES: usize = 300_000;

/// A report on some runs and a sweep.
#[derive(Debug)]
pub struct Report {
    pub(super) runs: Vec<RunReport>,
    pub(super) sweep: Option<Results>,
    pub(super) written: DateTime<Utc>,
}

impl Report {
    /// Reads the current state of `runs`, which may be in progress.
    ///
    /// # Errors
    /// A manifest or metrics file is corrupted; the error names it.
    pub fn load(runs: &[RunDir], sweep: Option<Results>, written: DateTime<Utc>) -> Result<Self> {
        let share = |of: usize| of / runs.len().max(1);
        let limits =
            Limits { columns: share(MAP_COLUMNS).clamp(16, COLUMNS), sample_bytes: share(SAMPLE_BYTES) };
        let mut reports: Vec<RunReport> =
            runs.iter().map(|run| RunReport::read(run, limits)).collect::<Result<_>>()?;
        let known: Vec<Known> = reports.iter().map(RunReport::known).collect();
        let names = names(&known);
        for ((report, run), name) in reports.iter_mut().zip(runs).zip(names) {
            let trial = sweep.as_ref().and_then(|sweep| Some((sweep, sweep::trial_of(sweep, run)?)));
            report.name = trial.map_or(name, |(sweep, trial)| trial_name(sweep, trial));
        }
        Ok(Self { runs: reports, sweep, written })
    }

    /// Renders the page. Secrets known to this process are redacted.
    pub fn to_html(&self) -> String {
        page::page(self)
    }
}
