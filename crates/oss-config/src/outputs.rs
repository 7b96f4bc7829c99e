//! `[evaluate]`, `[sample]` and `[export]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Validation during and after training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Steps between evaluations inside training; 0 evaluates only at the end.
    pub every_steps: u64,
    /// Validation tokens to score; all of them unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self { every_steps: 100, max_tokens: None }
    }
}

/// Texts that the model continues, during and after training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// Steps between samples inside training; 0 samples only at the end.
    pub every_steps: u64,
    /// Texts to continue.
    pub prompts: Vec<String>,
    /// Tokens to add at most.
    #[schemars(range(min = 1))]
    pub max_new_tokens: u64,
    /// Divides the logits; 0 takes the likeliest token.
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Draw among the k likeliest tokens only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub top_k: Option<u64>,
    /// Draw among the likeliest tokens that make up this share.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub top_p: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
    /// Texts that end a sample, besides end-of-text.
    pub stop: Vec<String>,
    /// Samples of each prompt.
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

/// The model handed on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// `"last"`, `"best"` or a step.
    pub checkpoint: CheckpointChoice,
    /// Layout of the directory.
    pub format: ExportFormat,
    /// Numbers of the exported weights.
    pub dtype: ExportDtype,
    /// Largest weight file, such as `"5GB"`.
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

/// A checkpoint by its step or its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CheckpointChoice {
    /// By its role.
    Named(NamedCheckpoint),
    /// By its step.
    Step(u64),
}

/// Checkpoints that have a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamedCheckpoint {
    /// The newest.
    Last,
    /// The one with the lowest validation loss.
    Best,
}

/// Layouts of an exported model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A Hugging Face directory.
    Hf,
}

/// Numbers of exported weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportDtype {
    /// bfloat16, as gpt-oss is released.
    Bf16,
    /// 32-bit floats.
    F32,
    /// Half precision.
    F16,
}
