//! `[sharding]`: number of ranks, and how the model is distributed over them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How training is distributed over ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sharding {
    /// Parallelism strategy; `none` runs on one device.
    pub strategy: Strategy,
    /// Number of ranks, one device each. Under torchrun or SLURM, it must match the number of ranks launched.
    #[schemars(range(min = 1))]
    pub ranks: u64,
    /// hsdp: number of ranks that one copy of the model is sharded over; defaults to the ranks of one machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub shard_degree: Option<u64>,
    /// Communication backend.
    pub backend: Backend,
    /// Keep the optimizer state in host memory and copy it to the GPU one layer at a time during each step.
    pub optimizer_cpu_offload: bool,
    /// Maximum time to wait for other ranks, at startup and in each collective.
    #[schemars(range(min = 1))]
    pub timeout_seconds: u64,
    /// How many times to restart all ranks from the last good checkpoint after a rank has died.
    pub max_restarts: u64,
}

impl Default for Sharding {
    fn default() -> Self {
        Self {
            strategy: Strategy::None,
            ranks: 1,
            shard_degree: None,
            backend: Backend::Auto,
            optimizer_cpu_offload: false,
            timeout_seconds: 600,
            max_restarts: 0,
        }
    }
}

/// What each rank stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// One device stores everything.
    None,
    /// Every rank stores the whole model.
    Ddp,
    /// Every rank stores one shard of the parameters, gradients and optimizer state.
    Fsdp,
    /// Sharded within a machine, replicated across machines.
    Hsdp,
}

/// Communication backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// NCCL on GPUs, Gloo on the CPU.
    Auto,
    /// NVIDIA's collectives, GPU only.
    Nccl,
    /// Collectives on the CPU.
    Gloo,
}
