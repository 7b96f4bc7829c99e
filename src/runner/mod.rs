//! Executes the plan: finds or creates the run, runs stale stages in order, and records the outcome.

mod commands;
mod compute;
mod data;
mod disk_space;
mod execute;
mod inspect;
pub mod loaded_run;
mod progress;
mod reproduce;
mod resume;
mod session;
mod summary;

use std::path::PathBuf;

use anyhow::{Error, Result, bail};

pub use commands::follow;
pub use reproduce::{Compared, Difference, Extent, Reproduced, Reproduction};
pub use resume::Resuming;
pub use summary::{StageSummary, Summary};

use crate::plan::{self, Choices, Graph, NetworkAccess, PlannedStage};
use commands::Order;
use oss_config::error::{Hint, UserError};
use oss_config::{Provenance, Resolved};
use oss_runs::run_dir::RunsDir;
use oss_train::distributed::World;
use progress::watch;
use session::{Session, is_stop, keep_marks};

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which stages to run, and whether to start a new run.
    pub choices: Choices,
    /// Stop training after this step without changing the schedule.
    pub stop_at_step: Option<u64>,
}

/// Origin of an experiment.
#[derive(Clone, Debug, Default)]
struct Source {
    /// Its file; `None` if it was read from a manifest that does not record one.
    file: Option<PathBuf>,
    /// Where each value was set.
    provenance: Provenance,
}

/// A run to be brought up to date.
pub struct Execution {
    graph: Graph,
    source: Source,
    options: Options,
    planned: Vec<PlannedStage>,
}

impl Execution {
    /// The run of an experiment, with every stage that is not up to date.
    ///
    /// # Errors
    /// The experiment is invalid, or an input cannot be found.
    pub fn of(resolved: &Resolved, runs: &RunsDir, options: Options) -> Result<Self> {
        let experiment = plan::with_vocabulary(&resolved.experiment)?;
        let graph = plan::graph(experiment, runs, &options.choices, NetworkAccess::Hub(watch()));
        let unstarted = |error: Error| match is_stop(&error) {
            true => error.context("stopped before the run began").hint("rerun the command to start it"),
            false => error,
        };
        let Some(graph) = graph.map_err(unstarted)? else {
            bail!(
                UserError::failed("cannot resolve the dataset on the hub")
                    .hint("check the network and HF_ENDPOINT")
            );
        };
        let source = Source { file: Some(resolved.file.clone()), provenance: resolved.provenance.clone() };
        Self::plan(graph, source, options)
    }

    fn plan(mut graph: Graph, source: Source, options: Options) -> Result<Self> {
        if let Some(manifest) = &graph.identity.manifest {
            keep_marks(&mut graph.experiment, manifest, &source.provenance);
        }
        let planned = plan::stages(&graph, graph.identity.manifest.as_ref(), &options.choices)?;
        Ok(Self { graph, source, options, planned })
    }

    /// Whether any stage has to run.
    pub fn has_work(&self) -> bool {
        !self.planned.iter().all(PlannedStage::is_fresh)
    }

    /// Brings the run up to date. The leader of `world` calls this; the other ranks call [`follow`].
    ///
    /// # Errors
    /// A stage failed, or stopped on request.
    pub fn run(self, world: &World) -> Result<Summary> {
        let Self { graph, source, options, planned } = self;
        tracing::info!("run        {}", graph.identity.run.root().display());
        if planned.iter().all(PlannedStage::is_fresh) && is_recorded(&graph) {
            for PlannedStage { stage, freshness } in &planned {
                tracing::info!("{stage:<10} {freshness}");
            }
            return Summary::of(&graph, planned.iter().map(StageSummary::of).collect());
        }
        let mut session = Session::start(graph, &source)?;
        world.announce(RUN, &session.run().root().to_string_lossy())?;
        let walked = execute::stages(&mut session, &options, world);
        session.finish(&walked)?;
        Summary::of(&session.graph, walked?)
    }
}

/// Key under which the launcher finds the run to resume after a rank has died.
pub const RUN: &str = "run";

/// Dismisses the other ranks after the leader's part has ended with `outcome`.
///
/// # Errors
/// Those of the leader's part.
pub fn dismiss<T>(outcome: Result<T>, world: &World) -> Result<T> {
    let order = match &outcome {
        Ok(_) => Order::Leave,
        Err(error) if is_stop(error) => Order::Stop,
        // They see it as a failure.
        Err(_) => return outcome,
    };
    // Ranks that stopped in the middle of a task no longer wait for commands, and may have exited.
    let _ = world.broadcast(Some(order));
    outcome
}

/// Whether the manifest already contains everything about the experiment, including notes.
fn is_recorded(graph: &Graph) -> bool {
    let recorded = graph.identity.manifest.as_ref().map(|manifest| &manifest.experiment);
    serde_json::to_value(&graph.experiment).ok().as_ref() == recorded
}
