//! Memory of a rank and room on the disk, from shapes alone.
//!
//! B micro-batch, T time, D hidden, H query heads, K key/value heads, C head dim, E experts, A active experts,
//! F expert width, V vocabulary.

use serde::Serialize;

use crate::experiment::{Checkpoint, Experiment, ExportDtype, Model, Precision, ScheduleKind, Strategy};
use crate::model::{num_units, parameters, unit_parameters, vocab_size};

/// Most bytes of logits that the loss holds at once.
const LOGITS_CHUNK_BYTES: u64 = 256 << 20;

/// Bytes of a master weight, a gradient, or one moment of the optimizer.
const F32_BYTES: u64 = 4;

/// Bytes that one rank needs, by what they hold. Weights, gradients and moments are exact; the rest is an estimate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Master weights, f32.
    pub weights: u64,
    /// Copies of weights in the precision of the matrix products, or gathered from other ranks: two units at a time.
    pub working_weights: u64,
    /// Gradients, f32.
    pub gradients: u64,
    /// Both moments, f32.
    pub optimizer: u64,
    /// What the backward pass needs of the forward pass.
    pub activations: u64,
    /// The chunk of logits that the loss works on, and its gradient.
    pub logits: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.working_weights + self.gradients + self.optimizer + self.activations + self.logits
    }
}

/// Bytes on the disk, by what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// One checkpoint: weights and both moments, f32.
    pub checkpoint: u64,
    /// Checkpoints that are there at once, the one being written included.
    pub num_checkpoints: u64,
    /// The exported model.
    pub export: u64,
}

impl Disk {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.checkpoint.saturating_mul(self.num_checkpoints).saturating_add(self.export)
    }
}

/// Memory of one rank; the model's `vocab_size` is set.
pub fn memory(experiment: &Experiment) -> Memory {
    let (model, train, sharding) = (&experiment.model, &experiment.train, &experiment.sharding);
    let ranks = sharding.ranks.max(1);
    let shards = match sharding.strategy {
        Strategy::Fsdp | Strategy::Hsdp => ranks,
        Strategy::None | Strategy::Ddp => 1,
    };
    let total = count(model);
    let element_bytes = precision_bytes(train.precision);
    let largest_unit = (0..num_units(model)).map(|unit| unit_count(model, unit)).max().unwrap_or(0);
    let copied = shards > 1 || train.precision != Precision::F32;
    let state = F32_BYTES * total.div_ceil(shards);
    let rows = (train.micro_batch_size * train.sequence_length).unsigned_abs(); // B*T
    Memory {
        weights: state,
        working_weights: if copied { 2 * largest_unit * element_bytes } else { 0 },
        gradients: state,
        optimizer: 2 * state,
        activations: activation_bytes(experiment, rows, ranks, element_bytes),
        logits: 2 * LOGITS_CHUNK_BYTES.min(rows * vocab_size(model).unsigned_abs() * F32_BYTES),
    }
}

/// All micro-batches of a step pass through a unit before the next, so each keeps its activations.
fn activation_bytes(experiment: &Experiment, rows: u64, ranks: u64, element_bytes: u64) -> u64 {
    let (model, train) = (&experiment.model, &experiment.train);
    let layers = model.num_hidden_layers.unsigned_abs();
    let rank_rows = (train.global_batch_size * train.sequence_length).unsigned_abs().div_ceil(ranks);
    let boundaries = (layers + 1) * rank_rows * model.hidden_size.unsigned_abs();
    let inside = block_elements_per_row(model);
    let blocks = if train.recompute { rows * inside } else { layers * rank_rows * inside };
    (boundaries + blocks) * element_bytes
}

/// Elements that a block keeps for each row between its forward and its backward pass.
fn block_elements_per_row(model: &Model) -> u64 {
    let Model { hidden_size: d, head_dim: c, num_local_experts: e, intermediate_size: f, .. } = *model;
    let (q, kv, a) =
        (model.num_attention_heads * c, model.num_key_value_heads * c, model.num_experts_per_tok);
    let attention = d + q + 2 * kv + q; // normalised rows; queries, keys, values; attended values
    let experts = 2 * d + e + a * (d + 2 * f + f + d); // residual, normalised rows; router; each visited expert
    (attention + experts).unsigned_abs()
}

/// Room that a run takes up to its end; the model's `vocab_size` is set.
pub fn disk(experiment: &Experiment) -> Disk {
    let total = count(&experiment.model);
    let export_bytes = match experiment.export.dtype {
        ExportDtype::F32 => 4,
        ExportDtype::Bf16 | ExportDtype::F16 => 2,
    };
    Disk {
        checkpoint: 3 * F32_BYTES * total,
        num_checkpoints: num_checkpoints(experiment),
        export: export_bytes * total,
    }
}

fn num_checkpoints(experiment: &Experiment) -> u64 {
    let Checkpoint { every_steps, keep_last, keep_every, keep_best, .. } = experiment.checkpoint;
    let steps = experiment.train.steps;
    let kept_for_good = keep_every.map_or(0, |every| steps / every.max(1));
    let before_decay = u64::from(experiment.schedule.kind == ScheduleKind::Wsd);
    // A checkpoint is complete before the one that it replaces goes.
    let at_once = keep_last + 1 + kept_for_good + u64::from(keep_best) + before_decay;
    at_once.min(steps.div_ceil(every_steps.max(1)) + before_decay)
}

fn count(model: &Model) -> u64 {
    parameters(model).iter().map(|parameter| parameter.numel().unsigned_abs()).sum()
}

fn unit_count(model: &Model, unit: usize) -> u64 {
    unit_parameters(model, unit).iter().map(|parameter| parameter.numel().unsigned_abs()).sum()
}

fn precision_bytes(precision: Precision) -> u64 {
    match precision {
        Precision::F32 => 4,
        Precision::Bf16 | Precision::F16 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Preset;

    const GIB: u64 = 1 << 30;

    fn experiment(preset: Preset) -> Experiment {
        let model = Model { vocab_size: Some(201_088), ..preset.model() };
        Experiment { model, ..Experiment::default() }
    }

    #[test]
    fn five_ranks_share_the_state_of_the_20b_model() {
        let mut experiment = experiment(Preset::B20);
        experiment.train.precision = Precision::Bf16;
        experiment.train.global_batch_size = 40;
        let alone = memory(&experiment);
        assert_eq!(alone.weights + alone.gradients + alone.optimizer, 16 * 20_914_757_184);
        experiment.sharding.strategy = Strategy::Fsdp;
        experiment.sharding.ranks = 5;
        let shared = memory(&experiment);
        assert_eq!(shared.optimizer, 8 * 20_914_757_184_u64.div_ceil(5));
        assert!(shared.activations < alone.activations);
        experiment.train.recompute = true;
        let shared = memory(&experiment);
        assert!(shared.total() / GIB < 75, "{}", shared.total() / GIB);
    }

    #[test]
    fn recomputation_keeps_one_block() {
        let mut experiment = experiment(Preset::M110);
        let kept = memory(&experiment).activations;
        experiment.train.recompute = true;
        assert!(memory(&experiment).activations < kept / 4);
    }

    #[test]
    fn checkpoints_are_counted_as_they_are_kept() {
        let mut experiment = experiment(Preset::Tiny);
        experiment.train.steps = 1000;
        experiment.checkpoint = Checkpoint { every_steps: 100, keep_last: 2, ..Checkpoint::default() };
        assert_eq!(disk(&experiment).num_checkpoints, 3);
        experiment.checkpoint.keep_every = Some(500);
        experiment.checkpoint.keep_best = true;
        assert_eq!(disk(&experiment).num_checkpoints, 6);
        experiment.checkpoint.every_steps = 1000;
        assert_eq!(disk(&experiment).num_checkpoints, 1, "no more than are written");
    }
}
