//! Turns an experiment into stages, keys, staleness and estimates.
//!
//! - [`table`] defines what each value invalidates, and [`invalidation_docs`] which stages that affects.
//! - [`inputs`] identifies what an experiment reads, [`keys`] hashes it, and [`identity`] finds its run.
//! - [`Graph`] compares each stage's key with the run's records; [`staleness`] explains why a stage has to run, and
//!   [`render`] renders the graph.
//! - [`estimate`], [`memory`], [`communication`] and [`disk`] compute the costs, [`calibration`] measures throughput,
//!   [`gpus`] checks which GPUs a rank fits on, and [`lints`] warns about unwise settings.

pub mod activations;
pub mod calibration;
pub mod communication;
pub mod disk;
mod error;
pub mod estimate;
pub mod gpus;
pub mod graph;
mod hub_pins;
pub mod identity;
pub mod initial;
pub mod inputs;
pub mod invalidation_docs;
pub mod keys;
pub mod lints;
pub mod memory;
pub mod mesh;
pub mod render;
pub mod staleness;
pub mod state_size;
pub mod table;
pub mod throughput;

use anyhow::Result;
use serde::Serialize;

pub use error::PlanError;
pub use graph::Graph;
pub use inputs::{Inputs, NetworkAccess};
pub use staleness::{Freshness, Reason};

use identity::TrainingFingerprint;
use oss_config::Experiment;
use oss_data::Tokenizer;
pub use oss_runs::run_dir::Stage;
use oss_runs::run_dir::{Manifest, RunsDir};

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

/// The experiment with `model.vocab_size` filled in from the tokenizer.
///
/// # Errors
/// The tokenizer cannot be read, or has more tokens than `model.vocab_size`.
pub fn with_vocabulary(experiment: &Experiment) -> Result<Experiment> {
    let tokens = Tokenizer::facts(&experiment.dataset.tokenizer)?.vocab_size;
    let mut filled = experiment.clone();
    match experiment.model.vocab_size {
        Some(set) if set < tokens => return Err(PlanError::VocabularyTooSmall { set, tokens }.into()),
        Some(_) => {}
        None => filled.model.vocab_size = Some(tokens),
    }
    Ok(filled)
}

/// The stages of `experiment`, whose vocabulary size must be filled in; `None` if an input on the hub is unresolved and
/// `reach` is local.
///
/// # Errors
/// An input cannot be found, or the existing run does not allow the change ([`PlanError`]).
pub fn graph(
    experiment: Experiment,
    runs: &RunsDir,
    choices: &Choices,
    reach: NetworkAccess<'_>,
) -> Result<Option<Graph>> {
    let Some(inputs) = Inputs::find(&experiment, runs, reach)? else { return Ok(None) };
    let name = experiment.run.name.clone().unwrap_or_else(|| "experiment".to_owned());
    let trajectory = TrainingFingerprint { experiment: &experiment, inputs: &inputs };
    let identity = identity::find(runs, &name, trajectory, choices.new)?;
    let experiment = inputs::pinned(&experiment, &inputs);
    Ok(Some(Graph { experiment, inputs, identity, runs: runs.clone() }))
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
