//! `[sharding]`: how many ranks share the work, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a model is spread over ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sharding {
    /// `none` runs on one device.
    pub strategy: Strategy,
    /// Number of ranks (one device each); under torchrun or SLURM, the number that these start.
    #[schemars(range(min = 1))]
    pub ranks: u64,
    /// hsdp: ranks that hold one copy of the model together; the ranks of one machine unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub ranks_per_replica: Option<u64>,
    /// Library that moves tensors between ranks.
    pub backend: Backend,
    /// Keep the optimizer's moments in host memory; they visit the GPU unit by unit at each step.
    pub offload_optimizer: bool,
    /// Longest wait of a rank for the others, at the start and in one exchange.
    #[schemars(range(min = 1))]
    pub timeout_seconds: u64,
    /// How often all ranks are started again, from the last good checkpoint, after one has died.
    pub max_restarts: u64,
}

impl Default for Sharding {
    fn default() -> Self {
        Self {
            strategy: Strategy::None,
            ranks: 1,
            ranks_per_replica: None,
            backend: Backend::Auto,
            offload_optimizer: false,
            timeout_seconds: 600,
            max_restarts: 0,
        }
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
    /// Sharded inside a machine, replicated across machines.
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
