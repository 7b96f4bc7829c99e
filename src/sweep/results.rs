//! The state and results of a sweep's trials: `results.jsonl`, the table, and means over seeds.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::halving::better;
use super::lease::Lease;
use super::status::Known;
use super::{SweepError, TrialStatus};
use oss_config::error::{Hint, UserError};
use oss_config::{Direction, SweepMetric, Values};
use oss_runs::run_dir::{RunStatus, RunsDir, SweepDir, write_atomic};

/// A trial, as in `results.jsonl` and `--json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Numbered from 1, never reused.
    pub trial: u64,
    /// Run id.
    pub run: String,
    /// Its state.
    #[serde(rename = "state")]
    pub status: TrialStatus,
    /// Its swept values.
    pub values: Values,
    /// The metric that trials are compared by.
    pub metric: SweepMetric,
    /// Whether lower or higher is better.
    pub direction: Direction,
    /// The latest value of the metric; `None` before the first one, or if not finite.
    pub value: Option<f64>,
    /// Steps taken.
    pub step: u64,
    /// Steps of the complete trial.
    pub steps: u64,
    /// Working time of its processes in seconds, not counting killed ones.
    pub seconds: f64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Trials that differ only in the seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Their common values.
    pub values: Values,
    /// Mean of the metric.
    pub mean: f64,
    /// Sample standard deviation (n - 1); `None` for a single value.
    pub deviation: Option<f64>,
    /// Number of seeds with a value.
    pub seeds: usize,
}

/// The key to average over.
const SEED: &str = "run.seed";

/// All trials of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// Name of the sweep, which is the folder of its runs.
    pub name: String,
    /// The metric that trials are compared by.
    pub metric: SweepMetric,
    /// Whether lower or higher is better.
    pub direction: Direction,
    /// Run id of the best finished trial.
    pub best: Option<String>,
    /// Steps taken by all trials.
    pub steps_taken: u64,
    /// Total steps of all complete trials.
    pub steps: u64,
    /// In the order of their numbers.
    pub trials: Vec<TrialResult>,
    /// Means over `run.seed`, best first; empty if it is not swept.
    pub groups: Vec<Group>,
}

impl Results {
    /// Summarizes `trials`, given in the order of their numbers.
    pub fn new(name: String, metric: SweepMetric, direction: Direction, trials: Vec<TrialResult>) -> Self {
        let done = trials.iter().filter(|row| row.status == TrialStatus::DONE && row.value.is_some());
        let best = done.min_by(|a, b| better(a.value, b.value, direction)).map(|row| row.run.clone());
        Self {
            name,
            metric,
            direction,
            best,
            steps_taken: trials.iter().map(|row| row.step).sum(),
            steps: trials.iter().map(|row| row.steps).sum(),
            groups: groups(&trials, direction),
            trials,
        }
    }

    /// Reads the results of the sweep `name` written by [`Self::write`]. The sweep may be in progress: the state of
    /// unfinished trials is read from their runs.
    ///
    /// # Errors
    /// There is no such sweep, or a line is corrupted.
    pub fn read(runs: &RunsDir, name: &str) -> Result<Self> {
        let path = runs.sweep(name).results();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SweepError::Unknown { name: name.to_owned(), path }.into());
            }
            read => read
                .with_context(|| format!("cannot read {}", path.display()))
                .hint("check its permissions")?,
        };
        let row = |(index, line): (usize, &str)| {
            serde_json::from_str::<TrialResult>(line)
                .with_context(|| format!("{}:{} is damaged", path.display(), index + 1))
                .hint("run `oss-run sweep` to regenerate the file")
        };
        let rows = text.lines().enumerate().map(row).collect::<Result<Vec<_>>>()?;
        let rows: Vec<TrialResult> = rows.into_iter().map(|row| looked_at_again(row, runs, name)).collect();
        match rows.first() {
            Some(&TrialResult { metric, direction, .. }) => {
                Ok(Self::new(name.to_owned(), metric, direction, rows))
            }
            None => bail!(
                UserError::failed(format!("{} is empty", path.display()))
                    .hint("run `oss-run sweep` to regenerate the file")
            ),
        }
    }

    /// Number of trials in this state.
    pub fn count(&self, status: TrialStatus) -> usize {
        self.trials.iter().filter(|row| row.status == status).count()
    }

    /// Trials ordered by progress, then by metric, best first.
    pub fn ranked(&self) -> Vec<&TrialResult> {
        let mut ranked: Vec<&TrialResult> = self.trials.iter().collect();
        // Losses after different numbers of steps are not comparable.
        ranked.sort_by(|a, b| {
            (a.status != TrialStatus::DONE)
                .cmp(&(b.status != TrialStatus::DONE))
                .then(b.step.cmp(&a.step))
                .then(better(a.value, b.value, self.direction))
        });
        ranked
    }

    /// Replaces `results.jsonl`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &SweepDir) -> Result<()> {
        let path = dir.results();
        write_atomic(&path, |out| {
            for row in &self.trials {
                serde_json::to_writer(&mut *out, row)?;
                out.write_all(b"\n")?;
            }
            Ok(())
        })
        .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn looked_at_again(row: TrialResult, runs: &RunsDir, name: &str) -> TrialResult {
    let known = Known {
        failed: row.status == TrialStatus::FAILED,
        ended: row.status == TrialStatus::STOPPED,
        finished: row.status == TrialStatus::DONE,
        claimed: Lease::is_held(&runs.sweep(name), &row.run),
    };
    TrialResult { status: TrialStatus::of(RunStatus::read(&runs.run(name, &row.run)), known), ..row }
}

fn groups(trials: &[TrialResult], direction: Direction) -> Vec<Group> {
    let mut values_of: BTreeMap<String, (Values, Vec<f64>)> = BTreeMap::new();
    for row in trials.iter().filter(|row| row.status == TrialStatus::DONE) {
        let mut common = row.values.clone();
        let (Some(value), Some(_)) = (row.value, common.remove(SEED)) else { continue };
        let name = serde_json::to_string(&common).unwrap_or_default();
        values_of.entry(name).or_insert_with(|| (common, Vec::new())).1.push(value);
    }
    let mut groups: Vec<Group> = values_of
        .into_values()
        .map(|(values, metrics)| {
            let n = metrics.len() as f64;
            let mean = metrics.iter().sum::<f64>() / n;
            let squares: f64 = metrics.iter().map(|metric| (metric - mean).powi(2)).sum();
            let deviation = (metrics.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
            Group { values, mean, deviation, seeds: metrics.len() }
        })
        .collect();
    groups.sort_by(|a, b| better(Some(a.mean), Some(b.mean), direction));
    groups
}

/// A value as a table cell.
pub fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use oss_config::error::Status;

    fn row(
        trial: u64,
        status: TrialStatus,
        step: u64,
        value: Option<f64>,
        lr: f64,
        seed: u64,
    ) -> TrialResult {
        TrialResult {
            trial,
            run: format!("run{trial}"),
            status,
            values: Values::from([("optimizer.lr".into(), json!(lr)), (SEED.into(), json!(seed))]),
            metric: SweepMetric::ValLoss,
            direction: Direction::Minimize,
            value,
            step,
            steps: 10,
            seconds: 1.0,
            error: None,
        }
    }

    #[test]
    fn the_best_trial_is_a_finished_one() {
        let rows = vec![
            row(1, TrialStatus::DONE, 10, Some(2.0), 0.1, 0),
            row(2, TrialStatus::STOPPED, 5, Some(1.0), 0.2, 0),
            row(3, TrialStatus::DONE, 10, None, 0.3, 0),
            row(4, TrialStatus::DONE, 10, Some(1.5), 0.3, 1),
        ];
        let results = Results::new("a".into(), SweepMetric::ValLoss, Direction::Minimize, rows);
        assert_eq!(results.best.as_deref(), Some("run4"));
        assert_eq!((results.steps_taken, results.steps), (35, 40));
        let order: Vec<u64> = results.ranked().iter().map(|row| row.trial).collect();
        assert_eq!(order, [4, 1, 3, 2]);
    }

    #[test]
    fn results_round_trip_and_damage_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let missing = Results::read(&runs, "a").unwrap_err();
        assert_eq!(Status::of(&missing), Status::Wrong);
        assert!(missing.to_string().starts_with("no sweep `a` ("), "{missing}");
        let sweep = runs.sweep("a");
        fs::create_dir_all(sweep.results().parent().unwrap()).unwrap();
        let rows = vec![
            row(1, TrialStatus::DONE, 10, Some(2.0), 0.1, 0),
            row(2, TrialStatus::FAILED, 5, None, 0.2, 0),
        ];
        let written = Results::new("a".into(), SweepMetric::ValLoss, Direction::Minimize, rows);
        written.write(&sweep).unwrap();
        assert_eq!(Results::read(&runs, "a").unwrap(), written);
        let text = fs::read_to_string(sweep.results()).unwrap();
        fs::write(sweep.results(), text.replace("failed", "odd")).unwrap();
        let damaged = format!("{:#}", Results::read(&runs, "a").unwrap_err());
        assert!(damaged.contains("results.jsonl:2 is damaged") && damaged.contains("odd"), "{damaged}");
        fs::write(sweep.results(), "").unwrap();
        assert!(Results::read(&runs, "a").unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn seeds_are_averaged() {
        let rows = vec![
            row(1, TrialStatus::DONE, 10, Some(2.0), 0.1, 0),
            row(2, TrialStatus::DONE, 10, Some(4.0), 0.1, 1),
            row(3, TrialStatus::DONE, 10, Some(1.0), 0.2, 0),
            row(4, TrialStatus::FAILED, 10, Some(9.0), 0.2, 1),
        ];
        let results = Results::new("a".into(), SweepMetric::ValLoss, Direction::Minimize, rows);
        let shown: Vec<_> = results
            .groups
            .iter()
            .map(|g| (g.values["optimizer.lr"].clone(), g.mean, g.deviation, g.seeds))
            .collect();
        assert_eq!(shown, [(json!(0.2), 1.0, None, 1), (json!(0.1), 3.0, Some(2f64.sqrt()), 2)]);
    }
}
