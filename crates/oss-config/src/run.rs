//! `[run]` and `[log]`: what a run is called, how it reports.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who the run is, and how strictly it repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Name of the run's folder under `runs/`; the experiment's file name unless set.
    pub name: Option<String>,
    /// Seed of the initial weights, the order of the data and stochastic rounding.
    pub seed: u64,
    /// Bit-identical repeats on the same machine, at some cost in speed on CUDA.
    pub deterministic: bool,
    /// Free text kept in the manifest.
    pub notes: Option<String>,
    /// Free `key = "value"` pairs kept in the manifest.
    pub labels: BTreeMap<String, String>,
}

impl Default for Run {
    fn default() -> Self {
        Self { name: None, seed: 0, deterministic: true, notes: None, labels: BTreeMap::new() }
    }
}

/// How often a line goes to `metrics.jsonl` and TensorBoard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Steps between two lines; the first and the last step are always logged.
    #[schemars(range(min = 1))]
    pub every_steps: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { every_steps: 1 }
    }
}
