//! The experiment file: its sections as types, the layers that fill them, and what is wrong with them.

mod dataset;
mod model;
mod outputs;
mod run;
mod training;

pub use dataset::*;
pub use model::*;
pub use outputs::*;
pub use run::*;
pub use training::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One experiment: everything a run needs, in one TOML file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Experiment {
    /// Name, seed, notes.
    pub run: Run,
    /// Text and tokenizer.
    pub dataset: Dataset,
    /// Architecture and first weights.
    pub model: Model,
    /// AdamW and clipping.
    pub optimizer: Optimizer,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Steps, batches, precision, device.
    pub train: Train,
    /// Ranks.
    pub sharding: Sharding,
    /// Checkpoints.
    pub checkpoint: Checkpoint,
    /// Validation.
    pub evaluate: Evaluate,
    /// Samples.
    pub sample: Sample,
    /// The model handed on.
    pub export: Export,
    /// Logging.
    pub log: Log,
}
