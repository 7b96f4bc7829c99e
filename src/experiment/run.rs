//! `[run]`, `[log]` and `[sharding]`: what a run is called, how it reports, where it runs.

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

/// How a model is spread over ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sharding {
    /// `none` runs on one device.
    pub strategy: Strategy,
    /// Number of ranks (one device each).
    #[schemars(range(min = 1))]
    pub ranks: u64,
    /// Library that moves tensors between ranks.
    pub backend: Backend,
}

impl Default for Sharding {
    fn default() -> Self {
        Self { strategy: Strategy::None, ranks: 1, backend: Backend::Auto }
    }
}

/// What each rank holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// One device holds everything.
    None,
    /// Every rank holds the whole model.
    Ddp,
    /// Every rank holds one slice of parameters, gradients and optimizer state.
    Fsdp,
    /// Sharded inside a node, replicated across nodes.
    Hsdp,
}

/// Library that moves tensors between ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// NCCL on GPUs, Gloo on CPU.
    Auto,
    /// NVIDIA's collectives, GPUs only.
    Nccl,
    /// Collectives on the CPU.
    Gloo,
}

impl Strategy {
    /// The strategy as an experiment file names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ddp => "ddp",
            Self::Fsdp => "fsdp",
            Self::Hsdp => "hsdp",
        }
    }
}
