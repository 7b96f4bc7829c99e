//! A run at a glance: its manifest, the end of its metrics, and whether somebody is at work on it.

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
use oss_runs::run_dir::{Manifest, RunDir, RunStatus, RunsDir};
use oss_train::checkpoint;

/// What there is to know of a run without looking into its large files.
#[derive(Debug)]
pub struct Overview {
    /// The run.
    pub run: RunDir,
    /// What the run is and what happened to it, or why that cannot be read.
    pub manifest: Result<Manifest>,
    /// How it stands.
    pub status: RunStatus,
    /// Optimizer steps taken, as far as they were logged or saved.
    pub step: u64,
    /// The last values of the metrics that were asked for.
    pub tail: MetricsTail,
}

impl Overview {
    /// Looks at `run` and at the last value of each of `metrics`. What cannot be read is left out, and a manifest that
    /// cannot be is kept as the error that it is.
    pub fn of(run: RunDir, metrics: &[&str]) -> Self {
        let manifest = Manifest::load(&run).map_err(anyhow::Error::from);
        let tail = MetricsTail::read(&run.metrics(), metrics).unwrap_or_else(|error| {
            tracing::warn!("cannot read {}: {error}", run.metrics().display());
            MetricsTail::default()
        });
        let saved = checkpoint::newest_step(&run.checkpoints());
        let step = tail.step.max(saved).unwrap_or(0);
        // Looked at last: a run that has just ended has written its manifest before.
        let status = RunStatus::of(&run, manifest.as_ref().ok());
        Self { run, manifest, status, step, tail }
    }

    /// Every run, by the time of its last start, the newest last.
    ///
    /// # Errors
    /// The directory of all runs cannot be read.
    pub fn all(runs: &RunsDir, metrics: &[&str]) -> Result<Vec<Self>> {
        let listed = listed(runs)?;
        let mut all: Vec<Self> = listed.into_par_iter().map(|run| Self::of(run, metrics)).collect();
        all.sort_by_key(Self::started);
        Ok(all)
    }

    /// Name of the experiment: the folder's, which is there even when the manifest is not.
    pub fn name(&self) -> String {
        self.run.name()
    }

    /// Steps that it shall take.
    pub fn steps(&self) -> Option<u64> {
        self.value("train.steps").as_u64()
    }

    /// When it was last started.
    pub fn started(&self) -> Option<DateTime<Utc>> {
        self.manifest.as_ref().ok().map(Manifest::last_started)
    }

    /// How long it has been at work, all its starts together.
    pub fn duration(&self) -> Option<TimeDelta> {
        let manifest = self.manifest.as_ref().ok()?;
        let last_sign = || match self.status {
            RunStatus::Running => Some(Utc::now()),
            // A process that was killed could not say when; its last line does.
            _ => fs::metadata(self.run.metrics()).and_then(|file| file.modified()).map(Into::into).ok(),
        };
        let last = manifest.segments.last()?;
        let open = match last.finished {
            Some(_) => TimeDelta::zero(),
            None => (last_sign().unwrap_or(last.started) - last.started).max(TimeDelta::zero()),
        };
        Some(manifest.worked() + open)
    }

    /// Labels of the run.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.manifest.as_ref().map(Manifest::labels).unwrap_or_default()
    }

    /// Notes on the run.
    pub fn notes(&self) -> Option<&str> {
        self.manifest.as_ref().ok()?.notes()
    }

    /// The resolved value of a key of the experiment file; null where it is unset, or cannot be read.
    pub fn value(&self, key: &str) -> Value {
        let Ok(manifest) = &self.manifest else { return Value::Null };
        let (mut value, mut rest) = (&manifest.experiment, key);
        // Names of labels may have dots in them.
        while let Some(table) = value.as_object() {
            if let Some(found) = table.get(rest) {
                return found.clone();
            }
            let Some((first, inner)) = rest.split_once('.') else { break };
            let Some(found) = table.get(first) else { break };
            (value, rest) = (found, inner);
        }
        // A run of an earlier program may lack a key that was added since.
        default_values().get(key).cloned().unwrap_or_default()
    }

    /// The last value of a metric; none where it was never measured. What is no number is NaN.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let evaluated = || match name {
            "val_loss" => {
                self.manifest.as_ref().ok()?.stages.get(Stage::Evaluate.name())?.outputs.get("loss")
            }
            _ => None,
        };
        let found = self.tail.fields.get(name).or_else(evaluated)?;
        if found.is_null() { Some(f64::NAN) } else { found.as_f64() }
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        bytes_in(self.run.root())
    }
}

/// Every run of `runs`.
///
/// # Errors
/// The directory cannot be read.
pub fn listed(runs: &RunsDir) -> Result<Vec<RunDir>> {
    runs.list()
        .with_context(|| format!("cannot read {}", runs.root().display()))
        .hint("check its permissions, or give another place with --runs-dir")
}

/// Bytes of the files at and under `path`; what goes while we look does not count.
pub fn bytes_in(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| bytes_in(&entry.path())).sum()
}
