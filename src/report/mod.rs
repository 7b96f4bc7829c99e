//! What people read afterwards: one HTML file about one run or many, complete in itself.
//!
//! * [`Report`]: what there is to tell, read from the run directories (`run`, `curves`, `samples`) and written as a page.
//! * [`best_runs`]: of a sweep, which a report may be about, too.
//!
//! Nothing is fetched from anywhere: styles, data and script are inside the file, and a policy in it forbids the rest.

mod configuration;
mod curves;
mod page;
mod run;
mod samples;
mod sweep;
mod thin;

use anyhow::Result;
use chrono::{DateTime, Utc};

pub use sweep::best_runs;

use crate::sweep::Results;
use oss_runs::run_dir::RunDir;
use run::{Limits, RunReport};

/// Columns of the maps of all runs together.
const MAP_COLUMNS: usize = 2048;

/// Columns of one map.
const COLUMNS: usize = 256;

/// Bytes of the samples of all runs together.
const SAMPLE_BYTES: usize = 300_000;

/// What there is to tell of some runs and of a sweep.
#[derive(Debug)]
pub struct Report {
    runs: Vec<RunReport>,
    sweep: Option<Results>,
    written: DateTime<Utc>,
}

impl Report {
    /// Reads what `runs` have now; they may be trained meanwhile.
    ///
    /// # Errors
    /// A manifest or metrics file is damaged; the error names it.
    pub fn of(runs: &[RunDir], sweep: Option<Results>, written: DateTime<Utc>) -> Result<Self> {
        let share = |of: usize| of / runs.len().max(1);
        let limits =
            Limits { columns: share(MAP_COLUMNS).clamp(16, COLUMNS), sample_bytes: share(SAMPLE_BYTES) };
        let read = |run: &RunDir| {
            let mut report = RunReport::read(run, limits)?;
            if let Some(trial) = sweep.as_ref().and_then(|sweep| sweep::trial_of(sweep, run)) {
                report.label = format!("trial {}: {}", trial.trial, report.label);
            }
            Ok(report)
        };
        let runs = runs.iter().map(read).collect::<Result<_>>()?;
        Ok(Self { runs, sweep, written })
    }

    /// The page. No secret that this process knows is in it.
    pub fn to_html(&self) -> String {
        page::page(self)
    }
}
