//! The report of one run, read from its directory, which may be changing.

use std::fs;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};

use super::clock::clock;
use super::curves::{Curve, Map, curves, take_maps};
use super::names::Known;
use super::samples::{Moment, moments};
use super::thin::Point;
use crate::plan::estimate::{Estimate, estimate};
use crate::plan::identity::experiment_of;
use crate::stages::evaluate::Report as Evaluated;
use oss_config::Experiment;
use oss_runs::monitor::MetricsLog;
use oss_runs::run_dir::{Exit, Manifest, RunDir, RunStatus};

/// Limits on the size of one run's report.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum columns per map.
    pub columns: usize,
    /// Maximum size of samples in bytes.
    pub sample_bytes: usize,
}

/// One run.
#[derive(Debug)]
pub struct RunReport {
    /// `name/id`.
    pub label: String,
    /// What it is called on the page: its label, or what distinguishes it from the other runs.
    pub name: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// The key facts.
    pub facts: Facts,
    /// Seconds since the first logged step, by step; `None` if not known.
    pub clock: Option<Vec<Point>>,
    /// All scalar metrics at every logged step.
    pub curves: Vec<Curve>,
    /// The per-layer metrics.
    pub maps: Vec<Map>,
    /// Its samples.
    pub moments: Vec<Moment>,
    /// Number of sampling points, including those left out.
    pub num_moments: usize,
    /// The evaluation of its last checkpoint.
    pub evaluated: Option<Evaluated>,
}

/// The key facts of a run; `None` if unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Its state.
    pub status: RunStatus,
    /// The error that ended it.
    pub error: Option<String>,
    /// The last logged step.
    pub step: u64,
    /// The target number of steps.
    pub steps: Option<u64>,
    /// Steps without an update because the loss or the gradient was not finite.
    pub skipped: u64,
    /// The final or latest validation loss.
    pub last: Option<Loss>,
    /// The lowest validation loss.
    pub best: Option<Loss>,
    /// Tokens per second: the median over the logged steps.
    pub tokens_per_second: Option<f64>,
    /// Parameters and tokens per step.
    pub estimate: Option<Estimate>,
    /// Total working time over all starts, not counting starts whose end was not recorded.
    pub running_time: TimeDelta,
    /// When a metric was last logged.
    pub logged: Option<DateTime<Utc>>,
}

/// A validation loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Steps taken when it was measured.
    pub step: u64,
    /// Nats per token.
    pub nats: f64,
    /// The same in bits per byte of text.
    pub bits_per_byte: Option<f64>,
}

impl RunReport {
    /// Reads `run`. No lock is taken.
    ///
    /// # Errors
    /// The manifest or the metrics are corrupted; the error names the file.
    pub fn read(run: &RunDir, limits: Limits) -> Result<Self> {
        let manifest = Manifest::load(run)?;
        let lines = MetricsLog::read(&run.metrics())?;
        let mut curves = curves(&lines);
        let maps = take_maps(&mut curves, limits.columns);
        let evaluated = fs::read(run.evaluation()).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let (moments, num_moments) = moments(run, limits.sample_bytes);
        let modified = |file: fs::Metadata| file.modified().map(DateTime::<Utc>::from);
        let logged = fs::metadata(run.metrics()).and_then(modified).ok().filter(|_| !lines.is_empty());
        let status = RunStatus::of(run, Some(&manifest));
        let label = label(run);
        Ok(Self {
            name: label.clone(),
            label,
            clock: clock(&lines, &manifest.segments),
            facts: Facts::of(status, &manifest, &curves, evaluated.as_ref(), logged),
            manifest,
            curves,
            maps,
            moments,
            num_moments,
            evaluated,
        })
    }

    /// What its name on a page of several is derived from.
    pub fn known(&self) -> Known<'_> {
        Known { label: &self.label, manifest: &self.manifest }
    }

    /// Whether it is in progress.
    pub fn is_running(&self) -> bool {
        self.facts.status == RunStatus::Running
    }

    /// The curve of `tag`.
    pub fn curve(&self, tag: &str) -> Option<&Curve> {
        self.curves.iter().find(|curve| curve.tag == tag)
    }
}

impl Facts {
    fn of(
        status: RunStatus,
        manifest: &Manifest,
        curves: &[Curve],
        evaluated: Option<&Evaluated>,
        logged: Option<DateTime<Utc>>,
    ) -> Self {
        let experiment = experiment_of(manifest);
        let points = |tag: &str| {
            let curve = curves.iter().find(|curve| curve.tag == tag);
            curve.map_or(&[][..], |curve| curve.points.as_slice())
        };
        let nats_per_byte = points("validation/nats_per_byte");
        let losses =
            points("validation/loss").iter().filter(|(_, nats)| nats.is_finite()).map(|&(step, nats)| {
                let at_step = nats_per_byte.iter().find(|(at, _)| *at == step);
                Loss { step, nats, bits_per_byte: at_step.map(|(_, nats)| nats / std::f64::consts::LN_2) }
            });
        let last_stage = evaluated.map(|report| Loss {
            step: report.step,
            nats: report.evaluation.loss,
            bits_per_byte: Some(report.bits_per_byte),
        });
        let in_training = losses.clone().next_back();
        Self {
            error: match manifest.segments.last().and_then(|start| start.exit.as_ref()) {
                Some(Exit::Failed(error)) if status == RunStatus::Failed => Some(error.clone()),
                _ => None,
            },
            status,
            step: curves
                .iter()
                .filter_map(|curve| curve.points.last())
                .map(|point| point.0)
                .max()
                .unwrap_or(0),
            steps: experiment.as_ref().map(|experiment| experiment.train.steps),
            skipped: manifest.skipped_steps(),
            last: match (last_stage, in_training) {
                (Some(stage), Some(newer)) if newer.step > stage.step => Some(newer),
                (stage, newest) => stage.or(newest),
            },
            best: losses.min_by(|a, b| a.nats.total_cmp(&b.nats)),
            tokens_per_second: median(points("train/tokens_per_second")),
            estimate: experiment.as_ref().filter(|known| has_vocabulary(known)).map(estimate),
            running_time: manifest.running_time(),
            logged,
        }
    }

    /// Number of tokens trained on.
    pub fn tokens(&self) -> Option<u64> {
        Some(self.step * self.estimate.as_ref()?.tokens_per_step)
    }
}

/// The names of its folders, which may differ from the manifest: runs can be moved and copied.
fn label(run: &RunDir) -> String {
    let root = std::path::absolute(run.root()).unwrap_or_else(|_| run.root().to_owned());
    let names: Vec<_> = root.iter().map(|part| part.to_string_lossy()).collect();
    names[names.len().saturating_sub(2)..].join("/")
}

fn has_vocabulary(experiment: &Experiment) -> bool {
    experiment.model.vocab_size.is_some()
}

fn median(points: &[(u64, f64)]) -> Option<f64> {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn curve(tag: &str, points: &[(u64, f64)]) -> Curve {
        Curve { tag: tag.to_owned(), points: points.to_vec() }
    }

    #[test]
    fn facts_of_a_run_in_progress() {
        let manifest = Manifest::new("aa", "tiny", Value::Null);
        let curves = [
            curve("train/loss", &[(1, 4.0), (30, 2.0)]),
            curve("train/tokens_per_second", &[(1, 10.0), (20, 500.0), (30, 400.0)]),
            curve("validation/loss", &[(10, 3.0), (20, 2.0), (25, f64::NAN), (30, 2.5)]),
            curve("validation/nats_per_byte", &[(20, std::f64::consts::LN_2)]),
        ];
        let facts = Facts::of(RunStatus::Running, &manifest, &curves, None, None);
        assert_eq!((facts.step, facts.steps, facts.tokens()), (30, None, None));
        assert_eq!(facts.best, Some(Loss { step: 20, nats: 2.0, bits_per_byte: Some(1.0) }));
        assert_eq!(facts.last.map(|loss| loss.nats), Some(2.5));
        assert_eq!(facts.tokens_per_second, Some(400.0));
    }
}
