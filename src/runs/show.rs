//! The details of one run: configuration, history and outputs.

use std::path::PathBuf;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::label::Marks;
use super::overview::{Overview, bytes_in};
use crate::plan::Stage;
use crate::plan::graph::best_step;
use crate::plan::keys::{by_key, default_values};
use oss_config::error::ErrorReport;
use oss_runs::monitor::{MetricsLine, MetricsLog};
use oss_runs::run_dir::{Manifest, RunDir, RunStatus, Segment};
use oss_train::checkpoint;

/// The details of a run.
#[derive(Debug, Serialize)]
pub struct Details {
    /// Run id.
    pub id: String,
    /// Name of the experiment.
    pub name: String,
    /// Where it is.
    pub directory: PathBuf,
    /// Its state.
    #[serde(rename = "state")]
    pub status: RunStatus,
    /// The process that is writing to it.
    pub writer: Option<String>,
    /// Steps taken.
    pub step: u64,
    /// Its target number of steps.
    pub steps: Option<u64>,
    /// When it was first started.
    pub created: DateTime<Utc>,
    /// Total working time over all starts in seconds.
    pub seconds: Option<f64>,
    /// Size of its files in bytes.
    pub bytes: u64,
    /// Labels and notes.
    #[serde(flatten)]
    pub marks: Marks,
    /// Stages that were started, in order.
    pub stages: Vec<StageShown>,
    /// Every start.
    pub segments: Vec<Segment>,
    /// Values that differ from the defaults.
    pub values: Vec<SetValue>,
    /// Summary of the main metrics.
    pub metrics: Vec<MetricSummary>,
    /// Complete checkpoints, oldest first.
    pub checkpoints: Vec<StoredCheckpoint>,
    /// Its outputs, by kind.
    pub outputs: Vec<Output>,
}

/// A stage and its history.
#[derive(Debug, Serialize)]
pub struct StageShown {
    /// The stage.
    pub stage: Stage,
    /// Its state.
    #[serde(rename = "state")]
    pub status: RunStatus,
    /// When it started.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// Why it ran, or what failed.
    pub reason: Option<String>,
}

/// A value that differs from its default.
#[derive(Debug, PartialEq, Serialize)]
pub struct SetValue {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Where it was set; `None` if it is derived.
    pub set_by: Option<String>,
}

/// Summary of a metric; `null` for values that are not numbers.
#[derive(Debug, PartialEq, Serialize)]
pub struct MetricSummary {
    /// The metric.
    pub name: &'static str,
    /// Its first value.
    pub first: f64,
    /// Its last value.
    pub last: f64,
    /// Its best value: the lowest loss, the highest throughput.
    pub best: f64,
    /// The step of the best value.
    pub best_step: u64,
}

/// A checkpoint.
#[derive(Debug, PartialEq, Serialize)]
pub struct StoredCheckpoint {
    /// Its step.
    pub step: u64,
    /// Size of its files in bytes.
    pub bytes: u64,
    /// Whether it has the lowest validation loss of the stored checkpoints.
    pub best: bool,
}

/// An output file or folder.
#[derive(Debug, PartialEq, Serialize)]
pub struct Output {
    /// Its kind.
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The main metrics, and whether lower is better.
const MAIN_METRICS: [(&str, bool); 3] = [("loss", true), ("val_loss", true), ("tokens_per_second", false)];

impl Details {
    /// Reads `run`, which may be in progress.
    ///
    /// # Errors
    /// Its manifest cannot be read. Unreadable metrics or checkpoints are reported and left out.
    pub fn load(run: &RunDir) -> Result<Self> {
        let overview = Overview::load(run.clone(), &[]);
        let (status, step, steps) = (overview.status, overview.step, overview.steps());
        let is_running = status == RunStatus::Running;
        let seconds = overview.duration().map(|time| time.as_seconds_f64());
        let manifest = overview.manifest?;
        let lines = MetricsLog::read(&run.metrics()).unwrap_or_else(|error| {
            tracing::warn!("{}", ErrorReport::of(error));
            Vec::new()
        });
        Ok(Self {
            id: run.id(),
            name: run.name(),
            directory: run.root().to_owned(),
            status,
            writer: is_running
                .then(|| run.holder().map_or("another process".to_owned(), |holder| holder.to_string())),
            step,
            steps,
            created: manifest.created,
            seconds,
            bytes: bytes_in(run.root()),
            marks: Marks::of(&manifest),
            stages: stages(&manifest, is_running),
            values: set_values(&manifest),
            metrics: MAIN_METRICS
                .into_iter()
                .filter_map(|(name, least)| course(&lines, name, least))
                .collect(),
            checkpoints: stored_checkpoints(run),
            outputs: outputs(run),
            segments: manifest.segments,
        })
    }
}

fn stages(manifest: &Manifest, is_running: bool) -> Vec<StageShown> {
    let shown = |stage: Stage| {
        let record = manifest.stages.get(stage.name())?;
        Some(StageShown {
            stage,
            status: record.state.status(is_running),
            started: record.started,
            finished: record.finished,
            reason: record.reason.clone(),
        })
    };
    Stage::ALL.into_iter().filter_map(shown).collect()
}

/// Values that differ from the defaults, except labels and notes, which do not affect the run.
pub fn set_values(manifest: &Manifest) -> Vec<SetValue> {
    let differs = |(key, value): &(String, Value)| {
        default_values().get(key) != Some(value) && !["run.labels", "run.notes"].contains(&key.as_str())
    };
    let set_by = |key: &str| {
        let inside = format!("{key}.");
        let of = |(layer, by): (&String, &String)| {
            (layer == key || layer.starts_with(&inside)).then(|| by.clone())
        };
        manifest.layers.iter().find_map(of)
    };
    let values = by_key(manifest.experiment.clone()).into_iter().filter(differs);
    values.map(|(key, value)| SetValue { set_by: set_by(&key), key, value }).collect()
}

fn course(lines: &[MetricsLine], name: &'static str, least: bool) -> Option<MetricSummary> {
    let value = |line: &MetricsLine| {
        let value = line.fields.get(name)?;
        Some((line.step, value.as_f64().unwrap_or(f64::NAN)))
    };
    let values: Vec<(u64, f64)> = lines.iter().filter_map(value).collect();
    let (&(_, first), &(_, last)) = (values.first()?, values.last()?);
    // NaN is the worst in either direction.
    let badness = |number: f64| match (number.is_nan(), least) {
        (true, _) => f64::INFINITY,
        (false, true) => number,
        (false, false) => -number,
    };
    let &(best_step, best) = values.iter().min_by(|a, b| badness(a.1).total_cmp(&badness(b.1)))?;
    Some(MetricSummary { name, first, last, best, best_step })
}

fn stored_checkpoints(run: &RunDir) -> Vec<StoredCheckpoint> {
    let best = best_step(run).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    let stored_checkpoints = |(step, path): (u64, PathBuf)| StoredCheckpoint {
        step,
        bytes: bytes_in(&path),
        best: best == Some(step),
    };
    checkpoint::list(&run.checkpoints()).into_iter().map(stored_checkpoints).collect()
}

fn outputs(run: &RunDir) -> Vec<Output> {
    let places = [
        ("model", run.export()),
        ("samples", run.final_samples().with_extension("txt")),
        ("evaluation", run.evaluation()),
        ("report", run.report()),
        ("experiment", run.experiment_toml()),
        ("metrics", run.metrics()),
        ("tensorboard", run.tensorboard()),
    ];
    let there = places.into_iter().filter(|(_, path)| path.exists());
    there.map(|(what, path)| Output { what, bytes: bytes_in(&path), path }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_metric_summary_has_the_first_last_and_best_values() {
        let line = |(step, loss): (u64, Value)| {
            let fields = json!({"loss": loss}).as_object().unwrap().clone();
            MetricsLine { step, fields }
        };
        let lines: Vec<MetricsLine> =
            [(1, json!(null)), (2, json!(3.0)), (3, json!(1.0)), (4, json!(2.0))].map(line).into();
        let least = course(&lines, "loss", true).unwrap();
        assert!(least.first.is_nan());
        assert_eq!((least.last, least.best, least.best_step), (2.0, 1.0, 3));
        let greatest = course(&lines, "loss", false).unwrap();
        assert_eq!((greatest.best, greatest.best_step), (3.0, 2));
        assert_eq!(course(&lines, "val_loss", true), None);
    }

    #[test]
    fn values_are_shown_with_their_origin() {
        let experiment = json!({
            "run": {"name": "tiny", "seed": 0, "labels": {"a": "b"}},
            "optimizer": {"lr": 0.002, "eps": 1e-8},
            "dataset": {"tokenizer": {"train": 512}},
        });
        let mut manifest = Manifest::new("aa", "tiny", experiment);
        manifest.layers.insert("optimizer.lr".into(), "--set optimizer.lr=2e-3".into());
        manifest.layers.insert("dataset.tokenizer.train".into(), "a.toml:3:4".into());
        let values = set_values(&manifest);
        let shown: Vec<(&str, Option<&str>)> =
            values.iter().map(|value| (value.key.as_str(), value.set_by.as_deref())).collect();
        assert_eq!(
            shown,
            [
                ("dataset.tokenizer", Some("a.toml:3:4")),
                ("optimizer.lr", Some("--set optimizer.lr=2e-3")),
                ("run.name", None),
            ]
        );
    }
}
