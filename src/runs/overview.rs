//! Summary of a run: its manifest, the end of its metrics, and whether it is in progress.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use rayon::prelude::*;
use serde_json::Value;

use crate::plan::Stage;
use crate::plan::keys::default_values;
use oss_config::error::Hint;
use oss_runs::monitor::MetricsTail;
use oss_runs::run_dir::{Manifest, RunDir, RunStatus, RunsDir, StageState};
use oss_train::checkpoint;

/// What can be known about a run without reading its large files.
#[derive(Debug)]
pub struct Overview {
    /// The run.
    pub run: RunDir,
    /// Its manifest, or why it cannot be read.
    pub manifest: Result<Manifest>,
    /// Its state.
    pub status: RunStatus,
    /// Optimizer steps taken, as far as logged or saved.
    pub step: u64,
    /// The last values of the requested metrics.
    pub tail: MetricsTail,
}

impl Overview {
    /// Reads `run` and the last value of each of `metrics`. What cannot be read is left out; for the manifest, the
    /// error is stored.
    pub fn load(run: RunDir, metrics: &[&str]) -> Self {
        let manifest = Manifest::load(&run).map_err(anyhow::Error::from);
        let tail = MetricsTail::read(&run.metrics(), metrics).unwrap_or_else(|error| {
            tracing::warn!("cannot read {}: {error}", run.metrics().display());
            MetricsTail::default()
        });
        let saved = checkpoint::newest_step(&run.checkpoints());
        let step = tail.step.max(saved).unwrap_or(0);
        // After the manifest was loaded: see [`RunStatus::of`] for a run that ends in between.
        let status = RunStatus::of(&run, manifest.as_ref().ok());
        Self { run, manifest, status, step, tail }
    }

    /// All runs, ordered by last start, newest last.
    ///
    /// # Errors
    /// The runs directory cannot be read.
    pub fn all(runs: &RunsDir, metrics: &[&str]) -> Result<Vec<Self>> {
        let listed = listed(runs)?;
        let mut all: Vec<Self> = listed.into_par_iter().map(|run| Self::load(run, metrics)).collect();
        all.sort_by_key(Self::started);
        Ok(all)
    }

    /// Name of the experiment: the name of the folder, which exists even without a manifest.
    pub fn name(&self) -> String {
        self.run.name()
    }

    /// Its target number of steps.
    pub fn steps(&self) -> Option<u64> {
        self.value("train.steps").as_u64()
    }

    /// Steps without an update because the loss or the gradient was not finite.
    pub fn skipped_steps(&self) -> u64 {
        self.manifest.as_ref().map_or(0, Manifest::skipped_steps)
    }

    /// When it was last started.
    pub fn started(&self) -> Option<DateTime<Utc>> {
        self.manifest.as_ref().ok().map(Manifest::last_started)
    }

    /// Total working time over all starts.
    pub fn duration(&self) -> Option<TimeDelta> {
        let manifest = self.manifest.as_ref().ok()?;
        let last_sign = || match self.status {
            RunStatus::Running => Some(Utc::now()),
            // A killed process did not record its end; use the time of its last line.
            _ => fs::metadata(self.run.metrics()).and_then(|file| file.modified()).map(Into::into).ok(),
        };
        let last = manifest.segments.last()?;
        let open = match last.finished {
            Some(_) => TimeDelta::zero(),
            None => (last_sign().unwrap_or(last.started) - last.started).max(TimeDelta::zero()),
        };
        Some(manifest.running_time() + open)
    }

    /// Labels of the run.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.manifest.as_ref().map(Manifest::labels).unwrap_or_default()
    }

    /// Notes on the run.
    pub fn notes(&self) -> Option<&str> {
        self.manifest.as_ref().ok()?.notes()
    }

    /// The resolved value of a key of the experiment file; null if unset or unreadable.
    pub fn value(&self, key: &str) -> Value {
        let Ok(manifest) = &self.manifest else { return Value::Null };
        let (mut value, mut rest) = (&manifest.experiment, key);
        // Label names may contain dots.
        while let Some(table) = value.as_object() {
            if let Some(found) = table.get(rest) {
                return found.clone();
            }
            let Some((first, inner)) = rest.split_once('.') else { break };
            let Some(found) = table.get(first) else { break };
            (value, rest) = (found, inner);
        }
        // A run by an earlier version may lack keys added since.
        default_values().get(key).cloned().unwrap_or_default()
    }

    /// The last value of a metric; `None` if it was never measured, NaN if it is not a number.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let evaluated = self.final_loss().filter(|_| name == "val_loss");
        let found = evaluated.or_else(|| self.tail.fields.get(name))?;
        if found.is_null() { Some(f64::NAN) } else { found.as_f64() }
    }

    /// The result of the evaluate stage on the final weights: training may have evaluated earlier ones last.
    fn final_loss(&self) -> Option<&Value> {
        let stages = &self.manifest.as_ref().ok()?.stages;
        let (train, evaluate) = (stages.get(Stage::Train.name())?, stages.get(Stage::Evaluate.name())?);
        let is_done = [train, evaluate].iter().all(|record| record.state == StageState::Done);
        let weights = train.outputs.get("weights").and_then(Value::as_str);
        let is_final = weights == evaluate.inputs.get("weights").map(String::as_str);
        evaluate.outputs.get("loss").filter(|_| is_done && is_final)
    }

    /// Size of its files in bytes.
    pub fn bytes(&self) -> u64 {
        bytes_in(self.run.root())
    }
}

/// All runs in `runs`.
///
/// # Errors
/// The directory cannot be read.
pub fn listed(runs: &RunsDir) -> Result<Vec<RunDir>> {
    runs.list()
        .with_context(|| format!("cannot read {}", runs.root().display()))
        .hint("check its permissions, or choose another directory with --runs-dir")
}

/// Size of the files at and under `path`; files that disappear meanwhile are not counted.
pub fn bytes_in(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| bytes_in(&entry.path())).sum()
}
