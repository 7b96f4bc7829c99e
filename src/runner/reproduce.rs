//! Repeats a run from its manifest and compares the results with the original.

mod compare;
mod environment_diff;

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::execution::{Execution, Options, Source};
use super::loaded_run::graph_of;
use super::session::is_stop;
use crate::plan::identity::{self, TrainingFingerprint, steps_taken};
use crate::plan::{Choices, Graph, Stage};
pub use compare::Compared;
use compare::compare;
pub use environment_diff::Difference;
use oss_config::error::UserError;
use oss_config::{Experiment, Provenance};
use oss_runs::interrupt;
use oss_runs::run_dir::{Manifest, RunDir, StageState};
use oss_train::checkpoint;
use oss_train::distributed::World;

/// How much to repeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Only the first N steps.
    pub steps: Option<u64>,
    /// Start over even if there is an earlier attempt.
    pub new: bool,
}

/// A run to be repeated, and where.
pub struct Reproduction {
    original: RunDir,
    manifest: Manifest,
    execution: Execution,
    steps: u64,
}

/// The outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Reproduced {
    /// The original run.
    pub original: std::path::PathBuf,
    /// The reproduction.
    pub reproduction: std::path::PathBuf,
    /// Number of steps compared.
    pub steps: u64,
    /// Whether everything that both have is identical, bit for bit.
    pub identical: bool,
    /// The individual comparisons.
    pub compared: Vec<Compared>,
    /// Differences in their environments.
    pub differences: Vec<Difference>,
}

impl Reproduction {
    /// Prepares to repeat `run` up to its current step, in a directory where neither its name nor `last` resolves to
    /// the copy, and where it can be resumed after a stop.
    ///
    /// # Errors
    /// The run has not taken a step, or its manifest is corrupted.
    pub fn load(run: &RunDir, extent: Extent) -> Result<Self> {
        let manifest = Manifest::load(run)?;
        let then = graph_of(run)?;
        let experiment = then.experiment;
        let taken = steps_taken(run);
        let steps = extent.steps.map_or(taken, |steps| steps.min(taken));
        if steps == 0 {
            bail!(
                UserError::failed(format!("{} has not taken any steps to compare", run.root().display()))
                    .hint("train it first")
            );
        }
        // A run given by its path may itself be a reproduction.
        let runs = then.runs.reproductions();
        let trajectory = TrainingFingerprint { experiment: &experiment, inputs: &then.inputs };
        let identity = identity::find(&runs, &manifest.name, trajectory, extent.new)?;
        let is_whole = steps == identity::last_step(run, &experiment);
        let done = |stage: &Stage| {
            manifest.stages.get(stage.name()).is_some_and(|record| record.state == StageState::Done)
        };
        // Tokens prepared by another run are not a stage of this one.
        let last = Stage::ALL.into_iter().rfind(done).filter(|_| is_whole);
        let options = Options {
            choices: Choices { until: last.unwrap_or(Stage::Train).max(Stage::Train), ..Choices::default() },
            stop_at_step: (!is_whole).then_some(steps),
            force_start: false,
        };
        let graph = Graph { experiment, inputs: then.inputs, identity, runs };
        let source = Source { file: manifest.file.clone(), provenance: Provenance::default() };
        let execution = Execution::plan(graph, source, options)?;
        // Same form as the reproduction's path, which starts with `runs`.
        let original = RunDir::new(std::path::absolute(run.root())?);
        Ok(Self { original, manifest, execution, steps })
    }

    /// The experiment to run.
    pub fn experiment(&self) -> &Experiment {
        &self.execution.graph.experiment
    }

    /// Differences between the environments of this run and the original.
    pub fn differences(&self) -> Vec<Difference> {
        environment_diff::differences(&self.manifest, &self.execution.graph)
    }

    /// Whether anything has to run before the two can be compared.
    pub fn has_work(&self) -> bool {
        match self.execution.options.stop_at_step {
            Some(step) => steps_taken(&self.execution.graph.identity.run) < step,
            None => self.execution.has_work(),
        }
    }

    /// Repeats the run and compares. The leader of `world` calls this; the other ranks call [`super::follow`].
    ///
    /// # Errors
    /// Those of [`Execution::run`]; files of either run cannot be read. A difference is not an error.
    pub fn run(self, world: &World) -> Result<Reproduced> {
        let differences = self.differences();
        let Self { original, execution, steps, .. } = self;
        let again = execution.graph.identity.run.clone();
        match execution.run(world) {
            Ok(_) => {}
            // The stop was intended.
            Err(error) if is_stop(&error) && !interrupt::requested() && has_checkpoint(&again, steps) => {}
            Err(error) => return Err(error),
        }
        let compared = compare(&original, &again, steps).with_context(|| {
            format!("comparing {} with {}", again.root().display(), original.root().display())
        })?;
        Ok(Reproduced {
            original: original.root().to_owned(),
            reproduction: again.root().to_owned(),
            steps,
            identical: compared.iter().all(|compared| compared.identical),
            compared,
            differences,
        })
    }
}

fn has_checkpoint(run: &RunDir, step: u64) -> bool {
    checkpoint::list(&run.checkpoints()).iter().any(|(other, _)| *other == step)
}

impl fmt::Display for Reproduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for compared in &self.compared {
            writeln!(f, "{compared}")?;
        }
        match self.identical {
            true => write!(f, "identical  {} steps, bit for bit", self.steps),
            false => {
                write!(f, "different")?;
                let known: Vec<String> = self
                    .differences
                    .iter()
                    .filter(|found| found.changes_bits)
                    .map(|found| found.what.clone())
                    .collect();
                match known.as_slice() {
                    [] => write!(f, "  although no known difference could change bits"),
                    known => write!(f, "  known causes of changed bits: {}", known.join(", ")),
                }
            }
        }
    }
}
