//! From an experiment to stages, keys, staleness and estimates.
//!
//! [`table`] says what invalidates what, [`consequences`] which stages that means; [`keys`] hashes it; [`inputs`] finds what an experiment reads; [`identity`]
//! finds the run that it is; [`Graph`] holds each stage's key against what the run has; [`staleness`] says why a stage
//! has to run, and [`drawing`] draws it; [`estimate`], [`memory`], [`traffic`] and [`disk`] say what it costs,
//! [`calibration`] how fast it goes, [`advice`] what looks unwise, and [`cards`] where that
//! fits.

pub mod activations;
pub mod advice;
pub mod calibration;
pub mod cards;
pub mod consequences;
pub mod disk;
pub mod drawing;
mod error;
pub mod estimate;
pub mod graph;
pub mod identity;
pub mod initial;
pub mod inputs;
pub mod keys;
pub mod memory;
pub mod mesh;
pub mod pace;
mod pins;
pub mod staleness;
pub mod stored;
pub mod table;
pub mod traffic;

use anyhow::Result;
use serde::Serialize;

pub use error::PlanError;
pub use graph::Graph;
pub use inputs::{Inputs, Reach};
pub use staleness::{Freshness, Reason};

use identity::Trajectory;
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

/// What is asked of the stages, beside the experiment.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The last stage to run.
    pub until: Stage,
    /// Stages that run in any case.
    pub force: Vec<Stage>,
    /// Start another run of the same experiment.
    pub new: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self { until: Stage::Export, force: Vec::new(), new: false }
    }
}

impl PlannedStage {
    /// Whether it need not run.
    pub fn is_fresh(&self) -> bool {
        matches!(self.freshness, Freshness::Fresh { .. })
    }
}

/// The experiment with its vocabulary filled in from the tokenizer.
///
/// # Errors
/// A tokenizer that cannot be read, or has more tokens than `model.vocab_size`.
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

/// The stages of `experiment`, whose vocabulary is filled in; none while something that it reads on the hub is
/// unknown and `reach` is local.
///
/// # Errors
/// Inputs that cannot be found; an experiment that its run cannot become ([`PlanError`]).
pub fn graph(
    experiment: Experiment,
    runs: &RunsDir,
    choices: &Choices,
    reach: Reach<'_>,
) -> Result<Option<Graph>> {
    let Some(inputs) = Inputs::find(&experiment, runs, reach)? else { return Ok(None) };
    let name = experiment.run.name.clone().unwrap_or_else(|| "experiment".to_owned());
    let trajectory = Trajectory { experiment: &experiment, inputs: &inputs };
    let identity = identity::find(runs, &name, trajectory, choices.new)?;
    let experiment = inputs::pinned(&experiment, &inputs);
    Ok(Some(Graph { experiment, inputs, identity, runs: runs.clone() }))
}

/// Whether each stage up to `choices.until` has to run, as things are. `manifest` is the run's at this moment.
///
/// # Errors
/// An input or output that cannot be looked at.
pub fn stages(graph: &Graph, manifest: Option<&Manifest>, choices: &Choices) -> Result<Vec<PlannedStage>> {
    plan_from(graph, manifest, choices, None)
}

/// The same of the stages after `done`, which has just run: what they read is known now.
///
/// # Errors
/// An input or output that cannot be looked at.
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
        // Until training has run, nobody knows the weights that the later stages read.
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
