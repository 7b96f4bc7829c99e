//! Communication volume per step, and the interconnect bandwidth needed to hide it behind compute.
//!
//! Units are communicated once per pass regardless of the number of micro-batches, so gradient accumulation adds no
//! communication. The figures are lower bounds for any algorithm: each of n ranks sends (n - 1)/n of what is gathered
//! or reduced, and twice that in an all-reduce. Scalars and expert loads are ignored.

use serde::Serialize;

use super::activations::precision_bytes;
use super::estimate::Estimate;
use super::mesh::{Mesh, Regions, device, on_gpu, regions, uses_gloo};
use super::throughput::Throughput;
use oss_config::{Experiment, Precision};
use oss_torch::element_bytes;
use oss_train::optimizer::{ParamGroup, StorageConfig};

const F32_BYTES: u64 = 4;

/// Assumed fraction of a device's peak throughput (MFU).
const UTILIZATION: f64 = 0.4;

/// The forward pass is a third of a step's FLOPs; activation checkpointing repeats it.
const RECOMPUTED: f64 = 4.0 / 3.0;

/// Devices and their peak FLOP/s: dense bf16 or f16, and f32 without TF32.
const DEVICES: [(&str, f64, f64); 3] =
    [("A100", 312e12, 19.5e12), ("H100", 989e12, 67e12), ("B200", 2250e12, 75e12)];

/// Bytes sent per rank and step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Weights gathered from the shards in both passes, and tensors gathered by the optimizer.
    pub all_gather: u64,
    /// Gradients reduce-scattered to the shards, f32.
    pub reduce_scatter: u64,
    /// Gradients of a shard, summed across replicas, f32.
    pub all_reduce: u64,
}

impl Traffic {
    /// The total.
    pub fn total(&self) -> u64 {
        self.all_gather + self.reduce_scatter + self.all_reduce
    }
}

/// The interconnect bandwidth that hides a step's communication behind its compute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interconnect {
    /// The compute device.
    pub device: String,
    /// Its assumed FLOP/s; `None` if the step was timed.
    pub flops_per_second: Option<f64>,
    /// Compute time per step in seconds.
    pub step_seconds: f64,
    /// Bytes per second that each rank has to send.
    pub bytes_per_second: f64,
}

/// Bytes sent per rank and step; the model's `vocab_size` must be set.
pub fn traffic(experiment: &Experiment) -> Traffic {
    let (train, sharding) = (&experiment.train, &experiment.sharding);
    let mesh = Mesh::of(sharding);
    let units = regions(&experiment.model, mesh.shards);
    let bytes = precision_bytes(train.precision);
    let others = mesh.shards - 1;
    let gathered: u64 = (0..units.len())
        .map(|index| {
            let unit = units[index];
            let weights =
                times_gathered(index, units.len()) * (unit.matrices * bytes + unit.rest * F32_BYTES);
            (weights + gathered_by_the_optimizer(experiment, unit)) / mesh.shards * others
        })
        .sum();
    let shard = F32_BYTES * units.iter().map(Regions::elements).sum::<u64>() / mesh.shards;
    // Gloo has no reduce-scatter: c10d uses all-reduce and keeps one shard.
    let reductions = if uses_gloo(sharding, train) { 2 } else { 1 };
    Traffic {
        all_gather: gathered,
        reduce_scatter: reductions * shard * others,
        all_reduce: (2 * shard * (mesh.replicas - 1)).div_ceil(mesh.replicas),
    }
}

/// Bytes of a unit that the optimizer step gathers.
fn gathered_by_the_optimizer(experiment: &Experiment, unit: Regions) -> u64 {
    let (storage, device) = (StorageConfig::new(experiment), device(&experiment.train));
    let bytes = |(group, elements): (ParamGroup, u64)| {
        let kind = storage.rule(group).gathered_kind(device);
        kind.map_or(0, |kind| elements * element_bytes(kind) as u64)
    };
    unit.groups().into_iter().map(bytes).sum()
}

/// How often a step gathers unit `index` of `units`. Blocks are gathered in the forward and the backward pass, except
/// that the last one is still in memory when the backward pass starts. The head runs forward and backward together, and
/// the embedding's gradient needs no weights.
fn times_gathered(index: usize, units: usize) -> u64 {
    if index == 0 || index + 2 >= units { 1 } else { 2 }
}

/// The minimum interconnect for some devices and for the run's own `throughput`; empty if there is no communication.
pub fn interconnects(
    experiment: &Experiment,
    estimate: &Estimate,
    throughput: Option<Throughput>,
) -> Vec<Interconnect> {
    let moved = traffic(experiment).total();
    if moved == 0 {
        return Vec::new();
    }
    let train = &experiment.train;
    let bytes_per_second = |seconds: f64| moved as f64 / seconds;
    let flops = flops_per_step(experiment, estimate);
    let devices = DEVICES.iter().filter(|_| on_gpu(train)).map(|(name, narrow, f32)| {
        let peak = if train.precision == Precision::F32 { f32 } else { narrow };
        let speed = peak * UTILIZATION;
        let step_seconds = flops / speed;
        Interconnect {
            device: (*name).to_owned(),
            flops_per_second: Some(speed),
            step_seconds,
            bytes_per_second: bytes_per_second(step_seconds),
        }
    });
    let measured = throughput.map(|throughput| {
        let step_seconds = estimate.tokens_per_step as f64 / throughput.tokens_per_second;
        let bytes_per_second = bytes_per_second(step_seconds);
        Interconnect { device: "this run".to_owned(), flops_per_second: None, step_seconds, bytes_per_second }
    });
    devices.chain(measured).collect()
}

/// FLOPs per rank and step, including recomputation.
fn flops_per_step(experiment: &Experiment, estimate: &Estimate) -> f64 {
    let ranks = experiment.sharding.ranks.max(1) as f64;
    let again = if experiment.train.activation_checkpointing { RECOMPUTED } else { 1.0 };
    estimate.flops_per_token * estimate.tokens_per_step as f64 * again / ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::estimate::estimate;
    use oss_config::{Backend, Model, OptimizerKind, Preset, Strategy};

    /// Regions of two shards: 6656 and 0, twice 61440 and 3072, 6656 and 512.
    fn tiny(strategy: Strategy, ranks: u64) -> Experiment {
        let model = Model { vocab_size: Some(100), ..Preset::Tiny.model() };
        let mut experiment = Experiment { model, ..Experiment::default() };
        experiment.train.device = "cuda".into();
        experiment.sharding.strategy = strategy;
        experiment.sharding.ranks = ranks;
        experiment
    }

    const ELEMENTS: u64 = 6656 + 2 * (61440 + 3072) + 6656 + 512;

    #[test]
    fn two_ranks_by_hand() {
        let mut experiment = tiny(Strategy::Fsdp, 2);
        let f32 = Traffic {
            all_gather: 4 * (6656 + (2 + 1) * (61440 + 3072) + 7168) / 2,
            reduce_scatter: 4 * ELEMENTS / 2,
            all_reduce: 0,
        };
        assert_eq!(traffic(&experiment), f32);
        experiment.optimizer.kind = OptimizerKind::Muon;
        let all_gather = f32.all_gather + 2 * 2 * 61440 / 2;
        assert_eq!(traffic(&experiment), Traffic { all_gather, ..f32 });
        experiment.optimizer.kind = OptimizerKind::Adamw;
        experiment.train.precision = Precision::Bf16;
        let all_gather = (2 * 6656 + (2 + 1) * (2 * 61440 + 4 * 3072) + 2 * 6656 + 4 * 512) / 2;
        assert_eq!(traffic(&experiment), Traffic { all_gather, ..f32 });
        experiment.sharding.backend = Backend::Gloo;
        let reduce_scatter = 2 * f32.reduce_scatter;
        assert_eq!(traffic(&experiment), Traffic { all_gather, reduce_scatter, all_reduce: 0 });
    }

    #[test]
    fn replicas_all_reduce_their_shard() {
        let alone = Traffic { all_gather: 0, reduce_scatter: 0, all_reduce: 0 };
        assert_eq!(traffic(&tiny(Strategy::None, 1)), alone);
        let whole = ELEMENTS - 3 * 256; // one shard needs no padding
        let all_reduce = 2 * 3 * 4 * whole / 4;
        assert_eq!(traffic(&tiny(Strategy::Ddp, 4)), Traffic { all_reduce, ..alone });
        let mut hybrid = tiny(Strategy::Hsdp, 4);
        hybrid.sharding.shard_degree = Some(2);
        let all_reduce = 4 * ELEMENTS / 2; // 2 * 1/2 of half of the gradients
        assert_eq!(traffic(&hybrid), Traffic { all_reduce, ..traffic(&tiny(Strategy::Fsdp, 2)) });
    }

    #[test]
    fn accumulation_adds_no_communication() {
        let mut experiment = tiny(Strategy::Fsdp, 4);
        let once = traffic(&experiment);
        (experiment.train.global_batch_size, experiment.train.micro_batch_size) = (256, 1);
        experiment.train.activation_checkpointing = true;
        assert_eq!(traffic(&experiment), once);
    }

    #[test]
    fn twice_the_work_needs_half_the_bandwidth() {
        let mut experiment = tiny(Strategy::Fsdp, 4);
        experiment.train.precision = Precision::Bf16;
        let speeds = |experiment: &Experiment| interconnects(experiment, &estimate(experiment), None);
        let once = speeds(&experiment);
        assert_eq!(once.len(), DEVICES.len());
        let by_hand = estimate(&experiment).flops_per_token * 32.0 * 512.0 / 4.0 / (0.4 * 312e12);
        assert!((once[0].step_seconds / by_hand - 1.0).abs() < 1e-12);
        experiment.train.global_batch_size *= 2;
        let twice = speeds(&experiment);
        assert!((once[0].bytes_per_second / twice[0].bytes_per_second - 2.0).abs() < 1e-12);
        experiment.train.activation_checkpointing = true;
        assert!((speeds(&experiment)[0].step_seconds / twice[0].step_seconds - 4.0 / 3.0).abs() < 1e-12);
        assert_eq!(speeds(&tiny(Strategy::None, 1)), []);
    }

    #[test]
    fn on_the_cpu_only_measured_throughput_counts() {
        let mut experiment = tiny(Strategy::Fsdp, 4);
        experiment.train.device = "cpu".into();
        let costs = estimate(&experiment);
        assert_eq!(interconnects(&experiment, &costs, None), []);
        let throughput = Throughput { tokens_per_second: 1024.0, secs_left: 0.0 };
        let speeds = interconnects(&experiment, &costs, Some(throughput));
        assert_eq!(speeds[0].step_seconds, 16.0);
        assert_eq!(speeds[0].bytes_per_second, traffic(&experiment).total() as f64 / 16.0);
    }
}
