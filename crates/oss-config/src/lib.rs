//! The experiment file: its sections as types, the layers that are merged into it, and its validation.
#![forbid(unsafe_code)]

mod check;
mod dataset;
mod document;
pub mod error;
mod errors;
mod familiar;
mod foreign;
mod from_inputs;
mod key_path;
mod known_keys;
mod layers;
mod load;
mod merge;
mod model;
mod outputs;
mod overrides;
mod paths;
mod provenance;
mod reference;
mod run;
mod schema;
mod shape;
mod sharding;
mod size;
mod suggest;
mod sweep;
mod training;
mod url;
mod validate;

#[cfg(test)]
mod tests;

pub use dataset::*;
pub use errors::{ExperimentErrors, Problem};
pub use from_inputs::Declared;
pub use known_keys::{KnownKey, known_keys};
pub use load::{Resolved, load, load_trial};
pub use model::*;
pub use outputs::*;
pub use overrides::{Overrides, PREFIX as ENVIRONMENT_PREFIX};
pub use provenance::{Explained, Provenance, SetBy};
pub use reference::reference;
pub use run::*;
pub use schema::schema;
pub use sharding::*;
pub use size::parse_bytes;
pub use suggest::nearest;
pub use sweep::{
    Between, Candidates, Condition, Direction, Halving, LastStage, OnFailure, Range, Sweep, SweepMethod,
    SweepMetric, Values, takes_integers,
};
pub use training::*;
pub use url::{Wanted, url_problem};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One experiment: everything that a run needs, in one TOML file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Experiment {
    /// Name, seed and notes.
    pub run: Run,
    /// Text and tokenizer.
    pub dataset: Dataset,
    /// Architecture and initial weights.
    pub model: Model,
    /// Optimizer and gradient clipping.
    pub optimizer: Optimizer,
    /// Learning rate schedule.
    pub schedule: Schedule,
    /// Steps, batches, precision and device.
    pub train: Train,
    /// Distributed training.
    pub sharding: Sharding,
    /// Checkpoints.
    pub checkpoint: Checkpoint,
    /// Validation.
    pub evaluate: Evaluate,
    /// Samples.
    pub sample: Sample,
    /// Exported model.
    pub export: Export,
    /// Logging.
    pub log: Log,
}

impl Experiment {
    /// The experiment with every key written out. Loading it gives the same experiment, even if defaults change later.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}
