//! `[run]` and `[log]`: the run's name, seed, notes and logging.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The run's name, seed and metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Name of the run's directory under `runs/`; defaults to the experiment's file name.
    pub name: Option<String>,
    /// Seed of weight initialization, data order and stochastic rounding.
    pub seed: u64,
    /// Make runs bit-for-bit repeatable on the same machine; somewhat slower on CUDA.
    pub deterministic: bool,
    /// Free-form text stored in the manifest.
    pub notes: Option<String>,
    /// Free-form `key = "value"` pairs stored in the manifest.
    pub labels: BTreeMap<String, String>,
}

impl Default for Run {
    fn default() -> Self {
        Self { name: None, seed: 0, deterministic: true, notes: None, labels: BTreeMap::new() }
    }
}

/// Logging to `metrics.jsonl` and TensorBoard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Steps between log entries; the first and last steps are always logged.
    #[schemars(range(min = 1))]
    pub every_steps: u64,
    /// Seconds between status lines if stderr is not a terminal, which shows a progress bar instead.
    #[schemars(range(min = 1))]
    pub every_seconds: u64,
    /// Keys that are columns of TensorBoard's HPARAMS tab, such as `optimizer.lr`; defaults to all, first those that do
    /// not have their default values. A sweep sets it to what it varies.
    pub hparams: Vec<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self { every_steps: 1, every_seconds: 30, hparams: Vec::new() }
    }
}
