//! Walks the plan: finds or makes the run, runs what is stale in order, and records what happened.

mod compute;
mod data;
mod inside;
mod orders;
mod reproduce;
mod resume;
mod room;
mod session;
mod summary;
pub mod trained;
mod walk;
mod watch;

use std::path::PathBuf;

use anyhow::{Error, Result, bail};

pub use orders::follow;
pub use reproduce::{Compared, Difference, Extent, Reproduced, Reproduction};
pub use resume::Resuming;
pub use summary::{StageSummary, Summary};

use crate::plan::{self, Choices, Graph, PlannedStage, Reach};
use orders::Order;
use oss_config::error::{Hint, UserError};
use oss_config::{Provenance, Resolved};
use oss_runs::run_dir::RunsDir;
use oss_train::distributed::World;
use session::{Session, is_stop, keep_marks};
use watch::watch;

/// How much of the graph runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which stages run, and whether the run is a new one.
    pub choices: Choices,
    /// Pause training after this step, without touching the schedule.
    pub stop_at_step: Option<u64>,
}

/// Where an experiment came from.
#[derive(Clone, Debug, Default)]
struct Source {
    /// Its file; none for one that is read from a manifest that knows none.
    file: Option<PathBuf>,
    /// Who set which value.
    provenance: Provenance,
}

/// A run that is to be brought up to date with its graph.
pub struct Execution {
    graph: Graph,
    source: Source,
    options: Options,
    planned: Vec<PlannedStage>,
}

impl Execution {
    /// The run of an experiment: every stage that is not fresh.
    ///
    /// # Errors
    /// An experiment that cannot be run as it is; inputs that cannot be found.
    pub fn of(resolved: &Resolved, runs: &RunsDir, options: Options) -> Result<Self> {
        let experiment = plan::with_vocabulary(&resolved.experiment)?;
        let graph = plan::graph(experiment, runs, &options.choices, Reach::Hub(watch()));
        let unstarted = |error: Error| match is_stop(&error) {
            true => error.context("stopped before the run began").hint("start it again to resume"),
            false => error,
        };
        let Some(graph) = graph.map_err(unstarted)? else {
            bail!(
                UserError::failed("the hub did not tell what it has")
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

    /// Whether a stage is not fresh.
    pub fn has_work(&self) -> bool {
        !self.planned.iter().all(PlannedStage::is_fresh)
    }

    /// Brings the run up to date. The leader of `world` calls this, the others [`follow`].
    ///
    /// # Errors
    /// A stage that fails, a stop on request.
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
        let walked = walk::stages(&mut session, &options, world);
        session.finish(&walked)?;
        Summary::of(&session.graph, walked?)
    }
}

/// Under this name the launcher learns which run to go on with after a rank has died.
pub const RUN: &str = "run";

/// Lets the other ranks go, now that the leader's part has ended like this.
///
/// # Errors
/// The part's own.
pub fn dismiss<T>(outcome: Result<T>, world: &World) -> Result<T> {
    let order = match &outcome {
        Ok(_) => Order::Leave,
        Err(error) if is_stop(error) => Order::Stop,
        // They learn it as a failure.
        Err(_) => return outcome,
    };
    // Ranks that stopped in the middle of a piece of work wait for nothing any more, and may be gone.
    let _ = world.share(Some(order));
    outcome
}

/// Whether the manifest already says everything about the experiment, its notes included.
fn is_recorded(graph: &Graph) -> bool {
    let recorded = graph.identity.manifest.as_ref().map(|manifest| &manifest.experiment);
    serde_json::to_value(&graph.experiment).ok().as_ref() == recorded
}
