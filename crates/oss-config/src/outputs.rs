//! `[evaluate]`, `[sample]` and `[export]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Validation, during and after training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Steps between evaluations during training; 0 evaluates only at the end.
    pub every_steps: u64,
    /// Maximum number of validation tokens; defaults to all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// Early stopping: end training after this many consecutive evaluations without a lower validation loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub patience: Option<u64>,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self { every_steps: 100, max_tokens: None, patience: None }
    }
}

/// Text generation from prompts, during and after training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// Steps between samples during training; 0 generates samples only at the end.
    pub every_steps: u64,
    /// Prompts to continue.
    pub prompts: Vec<String>,
    /// Maximum number of tokens to generate per sample.
    #[schemars(range(min = 1))]
    pub max_new_tokens: u64,
    /// Sampling temperature; 0 always picks the most likely token.
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Sample only from the k most likely tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub top_k: Option<u64>,
    /// Sample only from the most likely tokens whose probabilities add up to this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub top_p: Option<f64>,
    /// Seed of the sampler.
    pub seed: u64,
    /// Strings that end a sample, in addition to end-of-text.
    pub stop: Vec<String>,
    /// Number of samples per prompt.
    #[schemars(range(min = 1))]
    pub num_samples: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            every_steps: 0,
            prompts: vec!["Once upon a time".into()],
            max_new_tokens: 200,
            temperature: 0.8,
            top_k: None,
            top_p: None,
            seed: 0,
            stop: Vec::new(),
            num_samples: 1,
        }
    }
}

/// The exported model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// Checkpoint to export: `"last"`, `"best"` or a step.
    pub checkpoint: CheckpointChoice,
    /// Format of the exported directory.
    pub format: ExportFormat,
    /// Dtype of the exported weights.
    pub dtype: ExportDtype,
    /// Maximum size of each weight file, such as `"5GB"`.
    pub max_shard_size: String,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            checkpoint: CheckpointChoice::Named(NamedCheckpoint::Last),
            format: ExportFormat::Hf,
            dtype: ExportDtype::Bf16,
            max_shard_size: "5GB".into(),
        }
    }
}

/// A checkpoint by name or step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CheckpointChoice {
    /// By name.
    Named(NamedCheckpoint),
    /// By step.
    Step(u64),
}

/// Named checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamedCheckpoint {
    /// The most recent checkpoint.
    Last,
    /// The checkpoint with the lowest validation loss.
    Best,
}

/// Export formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A directory in Hugging Face format.
    Hf,
}

/// Dtypes of exported weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportDtype {
    /// bfloat16, as in the gpt-oss releases.
    Bf16,
    /// 32-bit floats.
    F32,
    /// float16.
    F16,
}
