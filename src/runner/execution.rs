//! A run and the plan to bring it up to date.

use std::path::PathBuf;

use anyhow::{Error, Result, bail};

use super::commands::RUN;
use super::completion::{complete, unresolved};
use super::preflight;
use super::progress::watch;
use super::session::{Session, is_stop, keep_labels};
use super::stage_loop::run_stages;
use super::{StageSummary, Summary};
use crate::plan::unfinished::left_behind;
use crate::plan::{self, Choices, Graph, NetworkAccess, PlannedStage};
use oss_config::error::Hint;
use oss_config::{Provenance, Resolved};
use oss_runs::run_dir::RunsDir;
use oss_train::distributed::World;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which stages to run, and whether to start a new run.
    pub choices: Choices,
    /// Stop training after this step without changing the schedule.
    pub stop_at_step: Option<u64>,
    /// Train even if the estimates say that memory or disk space is insufficient.
    pub force_start: bool,
}

/// Origin of an experiment.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its file; `None` if it was read from a manifest that does not record one.
    pub file: Option<PathBuf>,
    /// Where each value was set.
    pub provenance: Provenance,
}

/// A run to be brought up to date.
pub struct Execution {
    pub(super) graph: Graph,
    source: Source,
    pub(super) options: Options,
    planned: Vec<PlannedStage>,
}

impl Execution {
    /// The run of an experiment, with every stage that is not up to date.
    ///
    /// # Errors
    /// The experiment is invalid, or an input cannot be found.
    pub fn of(resolved: &Resolved, runs: &RunsDir, options: Options) -> Result<Self> {
        let hub = NetworkAccess::Hub(watch());
        let graph = complete(resolved, runs, options.force_start)
            .and_then(|resolved| plan::graph(resolved.experiment, runs, &options.choices, hub));
        let unstarted = |error: Error| match is_stop(&error) {
            true => error.context("stopped before the run began").hint("rerun the command to start it"),
            false => error,
        };
        let Some(graph) = graph.map_err(unstarted)? else { bail!(unresolved()) };
        if let Some(notice) = left_behind(&graph).filter(|_| !options.choices.new) {
            tracing::warn!("{notice}");
        }
        let source = Source { file: Some(resolved.file.clone()), provenance: resolved.provenance.clone() };
        Self::plan(graph, source, options)
    }

    pub(super) fn plan(mut graph: Graph, source: Source, options: Options) -> Result<Self> {
        if let Some(manifest) = &graph.identity.manifest {
            keep_labels(&mut graph.experiment, manifest, &source.provenance);
        }
        let planned = plan::stages(&graph, graph.identity.manifest.as_ref(), &options.choices)?;
        preflight::check(&graph, &planned, options.force_start)?;
        Ok(Self { graph, source, options, planned })
    }

    /// Whether any stage has to run.
    pub fn has_work(&self) -> bool {
        !self.planned.iter().all(PlannedStage::is_fresh)
    }

    /// Brings the run up to date. The leader of `world` calls this; the other ranks call [`follow`](super::follow).
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
        let walked = run_stages(&mut session, &options, world);
        session.finish(&walked)?;
        Summary::of(&session.graph, walked?)
    }
}

/// Whether the manifest already contains everything about the experiment, including notes.
fn is_recorded(graph: &Graph) -> bool {
    let recorded = graph.identity.manifest.as_ref().map(|manifest| &manifest.experiment);
    serde_json::to_value(&graph.experiment).ok().as_ref() == recorded
}
