//! Running a run again from its manifest, and holding what comes of it to what came of it then.

mod compare;
mod surroundings;

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::session::is_stop;
use super::trained::graph_of;
use super::{Execution, Options, Source};
use crate::plan::identity::{self, Trajectory, steps_taken};
use crate::plan::{Choices, Graph, Stage};
pub use compare::Compared;
use compare::compare;
use oss_config::error::UserError;
use oss_config::{Experiment, Provenance};
use oss_runs::interrupt;
use oss_runs::run_dir::{Manifest, RunDir, StageState};
use oss_train::checkpoint;
use oss_train::distributed::World;
pub use surroundings::Difference;

/// How much is run again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Only the first so many steps.
    pub steps: Option<u64>,
    /// Start over, although an earlier attempt is there.
    pub new: bool,
}

/// A run that shall be run again, and where.
pub struct Reproduction {
    original: RunDir,
    manifest: Manifest,
    execution: Execution,
    steps: u64,
}

/// How it ended.
#[derive(Clone, Debug, Serialize)]
pub struct Reproduced {
    /// The run.
    pub original: std::path::PathBuf,
    /// The run made again.
    pub reproduction: std::path::PathBuf,
    /// Steps that were compared.
    pub steps: u64,
    /// Whether everything that both have is the same, bit for bit.
    pub identical: bool,
    /// What was compared.
    pub compared: Vec<Compared>,
    /// What is different around the two.
    pub differences: Vec<Difference>,
}

impl Reproduction {
    /// Prepares to run `run` again as far as it has come, in a place where neither its name nor `last` comes to mean the
    /// copy of it, and where a stop loses nothing.
    ///
    /// # Errors
    /// A run that has not taken a step; a damaged manifest.
    pub fn of(run: &RunDir, extent: Extent) -> Result<Self> {
        let manifest = Manifest::load(run)?;
        let then = graph_of(run)?;
        let experiment = then.experiment;
        let taken = steps_taken(run);
        let steps = extent.steps.map_or(taken, |steps| steps.min(taken));
        if steps == 0 {
            bail!(
                UserError::failed(format!(
                    "{} has not taken a step that could be compared",
                    run.root().display()
                ))
                .hint("let it train first")
            );
        }
        // One that is given by its path may be a reproduction itself.
        let runs = then.runs.reproductions();
        let trajectory = Trajectory { experiment: &experiment, inputs: &then.inputs };
        let identity = identity::find(&runs, &manifest.name, trajectory, extent.new)?;
        let is_whole = steps == experiment.train.steps;
        let done = |stage: &Stage| {
            manifest.stages.get(stage.name()).is_some_and(|record| record.state == StageState::Done)
        };
        // Tokens that another run prepared are no stage of this one.
        let last = Stage::ALL.into_iter().rfind(done).filter(|_| is_whole);
        let options = Options {
            choices: Choices { until: last.unwrap_or(Stage::Train).max(Stage::Train), ..Choices::default() },
            stop_at_step: (!is_whole).then_some(steps),
        };
        let graph = Graph { experiment, inputs: then.inputs, identity, runs };
        let source = Source { file: manifest.file.clone(), provenance: Provenance::default() };
        let execution = Execution::plan(graph, source, options)?;
        // As the reproduction's path, which `runs` begins.
        let original = RunDir::new(std::path::absolute(run.root())?);
        Ok(Self { original, manifest, execution, steps })
    }

    /// What it is run with.
    pub fn experiment(&self) -> &Experiment {
        &self.execution.graph.experiment
    }

    /// What is different around this run and the original.
    pub fn differences(&self) -> Vec<Difference> {
        surroundings::differences(&self.manifest, &self.execution.graph)
    }

    /// Whether anything has to be computed before the two can be compared.
    pub fn has_work(&self) -> bool {
        match self.execution.options.stop_at_step {
            Some(step) => steps_taken(&self.execution.graph.identity.run) < step,
            None => self.execution.has_work(),
        }
    }

    /// Runs it again and compares. The leader of `world` calls this, the others [`super::follow`].
    ///
    /// # Errors
    /// As [`Execution::run`]; files of either run that cannot be read. That they differ is no error.
    pub fn run(self, world: &World) -> Result<Reproduced> {
        let differences = self.differences();
        let Self { original, execution, steps, .. } = self;
        let again = execution.graph.identity.run.clone();
        match execution.run(world) {
            Ok(_) => {}
            // It was to stop there.
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
                    [] => write!(f, "  although nothing is known to be different that could change a bit"),
                    known => write!(f, "  where these are known to change bits: {}", known.join(", ")),
                }
            }
        }
    }
}
