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

use std::path::Path;

use anyhow::{Error, Result, bail};

pub use orders::follow;
pub use reproduce::{Compared, Difference, Extent, Reproduced, Reproduction};
pub use resume::{Resuming, resume};
pub use summary::{StageSummary, Summary};

use crate::distributed::World;
use crate::error::{Hint, UserError};
use crate::experiment::{Provenance, Resolved};
use crate::plan::{self, Choices, Freshness, Graph, PlannedStage, Reach, Stage};
use crate::run_dir::RunsDir;
use orders::Order;
use session::{Session, is_stop, keep_marks};
use watch::watch;

/// How much of the graph runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The last stage to run.
    pub until: Stage,
    /// Stages that run in any case, and whether the run is a new one.
    pub choices: Choices,
    /// Pause training after this step, without touching the schedule.
    pub stop_at_step: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { until: Stage::Export, choices: Choices::default(), stop_at_step: None }
    }
}

/// Runs an experiment: every stage that is not fresh, up to `options.until`. The leader of `world` calls this, the others
/// [`follow`].
///
/// # Errors
/// An experiment that cannot be run as it is, a stage that fails, a stop on request.
pub fn run(resolved: &Resolved, runs: &RunsDir, options: &Options, world: &World) -> Result<Summary> {
    let from = From { file: Some(&resolved.file), provenance: &resolved.provenance };
    walk(graph(resolved, runs, options)?, &from, options, world)
}

/// Where an experiment came from.
struct From<'a> {
    /// Its file; none for one that is read from a manifest that knows none.
    file: Option<&'a Path>,
    /// Who set which value.
    provenance: &'a Provenance,
}

/// Whether [`run`] would find a stage that is not fresh.
///
/// # Errors
/// As [`run`], before its first stage.
pub fn has_work(resolved: &Resolved, runs: &RunsDir, options: &Options) -> Result<bool> {
    stale(&graph(resolved, runs, options)?, options)
}

fn stale(graph: &Graph, options: &Options) -> Result<bool> {
    let planned = plan::stages(graph, &options.choices.force)?;
    Ok(planned.iter().any(|planned| planned.stage <= options.until && !is_fresh(planned)))
}

fn graph(resolved: &Resolved, runs: &RunsDir, options: &Options) -> Result<Graph> {
    let experiment = plan::with_vocabulary(&resolved.experiment)?;
    let graph = plan::graph(experiment, runs, &options.choices, Reach::Hub(watch()));
    let unstarted = |error: Error| match is_stop(&error) {
        true => error.context("stopped before the run began").hint("start it again to go on"),
        false => error,
    };
    let Some(graph) = graph.map_err(unstarted)? else {
        bail!(
            UserError::failed("the hub did not tell what it has").hint("check the network and HF_ENDPOINT")
        );
    };
    Ok(graph)
}

/// Brings a run up to date with its graph.
fn walk(mut graph: Graph, from: &From<'_>, options: &Options, world: &World) -> Result<Summary> {
    if let Some(manifest) = &graph.identity.manifest {
        keep_marks(&mut graph.experiment, manifest, from.provenance);
    }
    tracing::info!("run        {}", graph.identity.run.root().display());
    let mut planned = plan::stages(&graph, &options.choices.force)?;
    planned.retain(|planned| planned.stage <= options.until);
    if planned.iter().all(is_fresh) && is_recorded(&graph) {
        for PlannedStage { stage, freshness } in &planned {
            tracing::info!("{stage:<10} {freshness}");
        }
        return Summary::of(&graph, planned.iter().map(StageSummary::fresh).collect());
    }
    let mut session = Session::start(graph, from)?;
    world.announce(RUN, &session.run().root().to_string_lossy())?;
    let walked = walk::stages(&mut session, options, world);
    session.finish(&walked)?;
    Summary::of(&session.graph, walked?)
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

fn is_fresh(planned: &PlannedStage) -> bool {
    matches!(planned.freshness, Freshness::Fresh { .. })
}

/// Whether the manifest already says everything about the experiment, its notes included.
fn is_recorded(graph: &Graph) -> bool {
    let recorded = graph.identity.manifest.as_ref().map(|manifest| &manifest.experiment);
    serde_json::to_value(&graph.experiment).ok().as_ref() == recorded
}
