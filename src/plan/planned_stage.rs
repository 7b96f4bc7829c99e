//! Which stages have to run.

use anyhow::Result;
use serde::Serialize;

use super::graph::Graph;
use super::staleness::{Freshness, Reason};
use oss_runs::run_dir::{Manifest, Stage};

/// A stage and whether it has to run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStage {
    /// The stage.
    pub stage: Stage,
    /// Whether it has to run.
    #[serde(flatten)]
    pub freshness: Freshness,
}

/// Command-line choices about the stages.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The last stage to run.
    pub until: Stage,
    /// Stages to run even if up to date.
    pub force: Vec<Stage>,
    /// Start a new run of the same experiment.
    pub new: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self { until: Stage::Export, force: Vec::new(), new: false }
    }
}

impl PlannedStage {
    /// Whether it is up to date.
    pub fn is_fresh(&self) -> bool {
        matches!(self.freshness, Freshness::Fresh { .. })
    }
}

/// Whether each stage up to `choices.until` has to run. `manifest` is the run's current manifest.
///
/// # Errors
/// An input or output cannot be read.
pub fn stages(graph: &Graph, manifest: Option<&Manifest>, choices: &Choices) -> Result<Vec<PlannedStage>> {
    plan_from(graph, manifest, choices, None)
}

/// The same for the stages after `done`, which has just run, so that their inputs are known.
///
/// # Errors
/// An input or output cannot be read.
pub fn stages_after(
    done: Stage,
    graph: &Graph,
    manifest: Option<&Manifest>,
    choices: &Choices,
) -> Result<Vec<PlannedStage>> {
    plan_from(graph, manifest, choices, Some(done))
}

fn plan_from(
    graph: &Graph,
    manifest: Option<&Manifest>,
    choices: &Choices,
    done: Option<Stage>,
) -> Result<Vec<PlannedStage>> {
    let mut planned: Vec<PlannedStage> = Vec::new();
    for stage in Stage::ALL.into_iter().filter(|stage| Some(*stage) > done && *stage <= choices.until) {
        // Until training has run, the weights that later stages read are unknown.
        let awaits_training = planned.iter().any(|other| other.stage == Stage::Train && !other.is_fresh());
        let freshness = if choices.force.contains(&stage) {
            Freshness::Stale { reason: Reason::Forced }
        } else if awaits_training {
            Freshness::Stale { reason: Reason::After(Stage::Train) }
        } else {
            graph.freshness(stage, manifest)?
        };
        planned.push(PlannedStage { stage, freshness });
    }
    Ok(planned)
}
