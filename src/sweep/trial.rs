//! One trial: an ordinary run, and its progress.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

use super::SweepError;
use super::trials::trials;
use crate::plan::identity::steps_taken;
use crate::plan::{self, Choices, Graph, NetworkAccess, PlannedStage, Stage};
use crate::runner::{complete, unresolved};
use crate::stages::evaluate::Report;
use oss_config::{Experiment, LastStage, Overrides, ScheduleKind, Sweep, SweepMetric, Values};
use oss_data::sources::Watch;
use oss_runs::interrupt;
use oss_runs::monitor::MetricsLog;
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};

/// One trial of a sweep.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its swept values.
    pub values: Values,
    /// Its stages.
    pub graph: Graph,
}

/// Threads per trial if the experiment does not set them; `None` means all cores.
pub type Threads = Option<usize>;

/// All trials of a sweep, in the order of its file.
///
/// # Errors
/// A trial's experiment is invalid, or two trials would be the same run.
pub fn of(
    file: &Path,
    overrides: &Overrides,
    sweep: &Sweep,
    runs: &RunsDir,
    threads: Threads,
) -> Result<Vec<Trial>> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut all = Vec::new();
    for values in trials(sweep)? {
        let resolved = oss_config::load_trial(file, overrides, &values)?;
        let watch = Watch { keep_going: &|| Ok(interrupt::check()?), progress: &|_| () };
        let hub = NetworkAccess::Hub(watch);
        let experiment = complete(&resolved, runs, false)?.experiment;
        let experiment = settled(experiment, sweep, threads);
        let graph = plan::graph(experiment, runs, &Choices::default(), hub)?;
        let Some(graph) = graph else { bail!(unresolved()) };
        let trial = Trial { values, graph };
        if let Some(first) = known.insert(trial.id(), trial.to_string()) {
            let (second, run) = (trial.to_string(), trial.run().root().to_owned());
            return Err(SweepError::SameRun { first, second, run }.into());
        }
        all.push(trial);
    }
    Ok(all)
}

/// The experiment with the sweep's settings, none of which makes it another run.
fn settled(mut experiment: Experiment, sweep: &Sweep, threads: Threads) -> Experiment {
    if experiment.log.hparams.is_empty() {
        experiment.log.hparams = sweep.keys().into_iter().map(str::to_owned).collect();
    }
    if experiment.train.threads.is_none() {
        experiment.train.threads = threads;
    }
    if let Some(halving) = &sweep.halving
        && sweep.metric.is_validation()
        && (experiment.evaluate.every_steps == 0
            || !halving.min_steps.is_multiple_of(experiment.evaluate.every_steps))
    {
        // All rungs are multiples of the first.
        experiment.evaluate.every_steps = halving.min_steps;
    }
    let schedule = &mut experiment.schedule;
    if matches!(schedule.kind, ScheduleKind::Cosine | ScheduleKind::Linear) {
        // Equals the derived value. Set explicitly, so that a trial with more steps is not taken for an extension of
        // another.
        schedule.decay_steps.get_or_insert(experiment.train.steps);
    }
    experiment
}

impl Trial {
    /// Run id.
    pub fn id(&self) -> String {
        self.run().id()
    }

    /// Its run.
    pub fn run(&self) -> &RunDir {
        &self.graph.identity.run
    }

    /// Steps of the complete trial.
    pub fn steps(&self) -> u64 {
        self.graph.experiment.train.steps
    }

    /// Steps taken.
    pub fn steps_taken(&self) -> u64 {
        steps_taken(self.run())
    }

    /// Whether every stage up to `until` is done.
    ///
    /// # Errors
    /// The manifest is corrupted, or an input or output cannot be read.
    pub fn is_finished(&self, until: LastStage) -> Result<bool> {
        if !self.run().exists() {
            return Ok(false);
        }
        let manifest = Manifest::load(self.run())?;
        let choices = Choices { until: last_stage(until), ..Choices::default() };
        Ok(plan::stages(&self.graph, Some(&manifest), &choices)?.iter().all(PlannedStage::is_fresh))
    }

    /// The newest value of `metric` at or before `step`; `None` if there is none or it is not a number.
    pub fn metric_at(&self, metric: SweepMetric, step: u64) -> Option<f64> {
        // The last line of a running trial may be partial; corrupted metrics are reported when the run itself is
        // opened.
        let lines = MetricsLog::read(&self.run().metrics()).unwrap_or_default();
        let value = |line: &oss_runs::monitor::MetricsLine| line.fields.get(metric.name()).cloned();
        let newest = lines.iter().rev().filter(|line| line.step <= step).find_map(value);
        newest.as_ref().and_then(Value::as_f64)
    }

    /// Whether `metric` was measured after exactly `step` steps.
    pub fn has_metric_at(&self, metric: SweepMetric, step: u64) -> bool {
        let lines = MetricsLog::read(&self.run().metrics()).unwrap_or_default();
        lines.iter().any(|line| line.step == step && line.fields.contains_key(metric.name()))
    }

    /// The final metric of a trial, or its latest value.
    pub fn metric(&self, metric: SweepMetric) -> Option<f64> {
        let report =
            || -> Option<Report> { serde_json::from_slice(&fs::read(self.run().evaluation()).ok()?).ok() };
        // The evaluate stage covers the whole validation set, but is outdated if training has continued since.
        let at_the_end = report().filter(|report| report.step == self.steps_taken());
        match (metric, at_the_end) {
            (SweepMetric::ValLoss, Some(report)) => Some(report.evaluation.loss),
            (SweepMetric::ValNatsPerByte, Some(report)) => Some(report.nats_per_byte),
            _ => self.metric_at(metric, u64::MAX),
        }
    }

    /// Working time of its processes in seconds.
    pub fn seconds(&self) -> f64 {
        Manifest::load(self.run()).map_or(0.0, |manifest| manifest.running_time().as_seconds_f64())
    }
}

/// Its values, `key = value, ...`.
impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<String> = self.values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        f.write_str(&shown.join(", "))
    }
}

/// The stage of the graph.
pub fn last_stage(until: LastStage) -> Stage {
    match until {
        LastStage::Train => Stage::Train,
        LastStage::Evaluate => Stage::Evaluate,
        LastStage::Sample => Stage::Sample,
        LastStage::Export => Stage::Export,
    }
}
