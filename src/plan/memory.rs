//! Memory per rank, by content. Weights, gradients and optimizer state are exact; activations are computed from shapes.

use serde::Serialize;

use super::activations::{self, Peak, precision_bytes};
use super::mesh::{Mesh, Regions, device, on_gpu, regions};
use super::state_size::{self, F32_BYTES};
use oss_config::{Experiment, Update};
use oss_train::model::{casts_on_read, matmul_kind};
use oss_train::optimizer::{RegionShape, StorageConfig};

/// Units whose weights are gathered at a time (one in use, the next prefetched); likewise for gradients being reduced.
const BUFFERS: u64 = 2;

/// Memory of one rank by content, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The rank's shard of the weights, as stored.
    pub parameters: u64,
    /// Its gradients, f32; only one or two units if the optimizer step runs in the backward pass.
    pub gradients: u64,
    /// The optimizer state of its shard, as stored.
    pub optimizer: u64,
    /// Copies of all matrices in the training precision, if a rank holds the whole model and stores it in another
    /// dtype.
    pub compute_copy: u64,
    /// Weights gathered from other ranks: twice the largest unit.
    pub gathered: u64,
    /// Unsharded gradients being reduced: twice the largest unit, in f32.
    pub gradients_in_flight: u64,
    /// Optimizer state moved to the GPU temporarily, if it is stored in host memory.
    pub moments_in_flight: u64,
    /// Activations saved for the backward pass.
    pub activations: u64,
    /// Temporary memory on top of all activations.
    pub workspace: u64,
    /// Where the workspace peaks.
    pub workspace_peak: Peak,
    /// The copy that is written in the background while training continues.
    pub checkpoint_copy: u64,
    /// The part that is in host memory while the model is on a GPU.
    pub on_host: u64,
}

impl Memory {
    /// Total on host and device.
    pub fn total(&self) -> u64 {
        self.state()
            + self.compute_copy
            + self.gathered
            + self.gradients_in_flight
            + self.moments_in_flight
            + self.activations
            + self.workspace
            + self.checkpoint_copy
    }

    /// Memory on the training device.
    pub fn on_device(&self) -> u64 {
        self.total() - self.on_host
    }

    /// Parameters, gradients and optimizer state, wherever stored: the part that sharding divides.
    pub fn state(&self) -> u64 {
        self.parameters + self.gradients + self.optimizer
    }
}

/// Memory of the rank that needs the most; the model's `vocab_size` must be set.
pub fn memory(experiment: &Experiment) -> Memory {
    let (train, sharding) = (&experiment.train, &experiment.sharding);
    let mesh = Mesh::of(sharding);
    let units = regions(&experiment.model, mesh.shards);
    let largest = |size: fn(&Regions) -> u64| units.iter().map(size).max().unwrap_or(0);
    let (largest_unit, largest_matrices) = (largest(Regions::elements), largest(|unit| unit.matrices));
    let whole = units.iter().fold(Regions::default(), |sum, unit| Regions {
        matrices: sum.matrices + unit.matrices,
        of_blocks: sum.of_blocks + unit.of_blocks,
        rest: sum.rest + unit.rest,
    });
    let bytes = precision_bytes(train.precision);
    let is_sharded = mesh.shards > 1;

    let unit_gathered = largest_matrices * bytes + largest(|unit| unit.rest) * F32_BYTES;
    let parameters = state_size::weights(experiment, whole) / mesh.shards;
    let optimizer = state_size::moments(experiment, whole) / mesh.shards;
    let gradients = match experiment.optimizer.update {
        Update::Step => F32_BYTES * whole.elements() / mesh.shards,
        Update::InBackward => mesh.ranks().min(BUFFERS) * F32_BYTES * largest_unit / mesh.shards,
    };
    let largest_moments = units.iter().map(|unit| state_size::moments(experiment, *unit)).max().unwrap_or(0);
    let checkpoint_copy = if experiment.checkpoint.background { parameters + optimizer } else { 0 };
    let offloads = sharding.optimizer_cpu_offload && on_gpu(train);
    let offloaded = if offloads { optimizer } else { 0 };
    let batch = activations::activations(experiment, mesh.ranks());
    let update = update_workspace(experiment, &units, mesh.shards);
    let (workspace, workspace_peak) =
        if update > batch.workspace { (update, Peak::Update) } else { (batch.workspace, batch.peak) };
    Memory {
        parameters,
        gradients,
        optimizer,
        compute_copy: if !is_sharded && bytes != state_size::matrix_bytes(experiment) {
            let (kind, device) = (matmul_kind(train.precision), device(train));
            let is_copied = |unit: &usize| !casts_on_read(&experiment.model, *unit, kind, device);
            (0..units.len()).filter(is_copied).map(|unit| units[unit].matrices * bytes).sum()
        } else {
            0
        },
        gathered: if is_sharded { BUFFERS * unit_gathered } else { 0 },
        gradients_in_flight: if is_sharded { BUFFERS * F32_BYTES * largest_unit } else { 0 },
        moments_in_flight: if offloads { largest_moments / mesh.shards } else { 0 },
        activations: batch.kept,
        workspace,
        workspace_peak,
        checkpoint_copy,
        on_host: if on_gpu(train) { offloaded + checkpoint_copy } else { 0 },
    }
}

/// Temporary bytes that the optimizer needs for the largest region of `units`.
fn update_workspace(experiment: &Experiment, units: &[Regions], shards: u64) -> u64 {
    let (storage, device) = (StorageConfig::new(experiment), device(&experiment.train));
    let bytes = |(group, elements)| {
        storage.rule(group).scratch_bytes(&RegionShape { group, elements, shards, device, storage })
    };
    units.iter().flat_map(Regions::groups).map(bytes).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::{Model, OptimizerKind, ParamDtype, Precision, Preset, StateDtype, Strategy};

    const GIB: u64 = 1 << 30;

    fn experiment(preset: Preset, vocab: i64) -> Experiment {
        let model = Model { vocab_size: Some(vocab), ..preset.model() };
        let mut experiment = Experiment { model, ..Experiment::default() };
        experiment.train.device = "cpu".into();
        experiment
    }

    fn on_ranks(experiment: &Experiment, strategy: Strategy, ranks: u64) -> Experiment {
        let mut experiment = experiment.clone();
        experiment.sharding.strategy = strategy;
        experiment.sharding.ranks = ranks;
        experiment
    }

    /// Regions of the tiny shape with a vocabulary of 100: 6400 and 0, twice 61440 and 3072, 6400 and 256.
    #[test]
    fn a_small_model_by_hand() {
        let mut experiment = experiment(Preset::Tiny, 100);
        let all = 6400 + 2 * (61440 + 3072) + 6400 + 256;
        let alone = memory(&experiment);
        assert_eq!((alone.parameters, alone.gradients, alone.optimizer), (4 * all, 4 * all, 8 * all));
        assert_eq!(
            (alone.compute_copy, alone.gathered, alone.gradients_in_flight, alone.on_host),
            (0, 0, 0, 0)
        );
        experiment.train.precision = Precision::Bf16;
        // Embedding rows are cast when read; on the CPU, so are tiles of the head.
        assert_eq!(memory(&experiment).compute_copy, 2 * 2 * 61440);
        experiment.train.device = "cuda".into();
        assert_eq!(memory(&experiment).compute_copy, 2 * (6400 + 2 * 61440));
        experiment.train.device = "cpu".into();

        // Two shards of whole blocks of 256: embedding and head are padded by one block.
        let two = on_ranks(&experiment, Strategy::Fsdp, 2);
        let (shared, padded) = (memory(&two), all + 3 * 256);
        assert_eq!((shared.parameters, shared.optimizer), (4 * padded / 2, 8 * padded / 2));
        assert_eq!((shared.compute_copy, shared.gathered), (0, 2 * (2 * 61440 + 4 * 3072)));
        assert_eq!(shared.gradients_in_flight, 2 * 4 * (61440 + 3072));
        experiment = two;
        experiment.checkpoint.background = true;
        assert_eq!(memory(&experiment).checkpoint_copy, 12 * padded / 2);
    }

    #[test]
    fn low_precision_state_and_in_backward_updates_by_hand() {
        let mut experiment = experiment(Preset::Tiny, 100);
        let (matrices, rest) = (2 * 6400 + 2 * 61440, 2 * 3072 + 256);
        experiment.train.precision = Precision::Bf16;
        experiment.train.param_dtype = ParamDtype::Bf16;
        experiment.optimizer.state_dtype = StateDtype::EightBit;
        experiment.optimizer.update = Update::InBackward;
        let alone = memory(&experiment);
        assert_eq!(alone.parameters, 2 * matrices + 4 * rest);
        assert_eq!(alone.optimizer, 2 * matrices + 2 * 4 * matrices / 256 + 8 * rest);
        assert_eq!((alone.gradients, alone.compute_copy), (4 * (61440 + 3072), 0));
        assert!(alone.workspace >= 48 * 61440);
        let two = memory(&on_ranks(&experiment, Strategy::Fsdp, 2));
        assert_eq!(two.gradients, 2 * 4 * (61440 + 3072) / 2);
        let copies = memory(&on_ranks(&experiment, Strategy::Ddp, 2));
        assert_eq!(copies.gradients, 2 * 4 * (61440 + 3072));
    }

    #[test]
    fn muon_keeps_one_moment_of_the_blocks() {
        let mut experiment = experiment(Preset::Tiny, 100);
        experiment.train.device = "cuda".into();
        let both = memory(&experiment);
        experiment.optimizer.kind = OptimizerKind::Muon;
        let one = memory(&experiment);
        assert_eq!(one.optimizer, both.optimizer - 2 * 4 * 61440);
        assert!(one.workspace >= (2 + 24) * 61440);
    }

    #[test]
    fn sharded_state_is_inversely_proportional_to_ranks() {
        let experiment = experiment(Preset::M110, 201_088);
        let whole = memory(&experiment).state();
        for ranks in [2, 3, 4, 8, 16] {
            let state = memory(&on_ranks(&experiment, Strategy::Fsdp, ranks)).state();
            let padding = 16 * 256 * 2 * 10; // at most one alignment for each region of the ten units
            assert!(
                (whole.div_ceil(ranks)..=whole.div_ceil(ranks) + padding).contains(&state),
                "{ranks}: {state}"
            );
        }
        assert_eq!(memory(&on_ranks(&experiment, Strategy::Ddp, 4)).state(), whole);
        let mut hybrid = on_ranks(&experiment, Strategy::Hsdp, 8);
        hybrid.sharding.shard_degree = Some(4);
        let four = memory(&on_ranks(&experiment, Strategy::Fsdp, 4));
        assert_eq!((memory(&hybrid).state(), memory(&hybrid).gathered), (four.state(), four.gathered));
    }

    #[test]
    fn offloaded_moments_are_in_host_memory() {
        let mut experiment = on_ranks(&experiment(Preset::M110, 201_088), Strategy::Fsdp, 4);
        experiment.sharding.optimizer_cpu_offload = true;
        assert_eq!(memory(&experiment).on_host, 0, "on the CPU there is no separate host memory");
        assert_eq!(memory(&experiment).moments_in_flight, 0);
        experiment.train.device = "cuda".into();
        experiment.checkpoint.background = true;
        let held = memory(&experiment);
        assert_eq!(held.on_host, held.optimizer + held.checkpoint_copy);
        assert_eq!(held.on_device(), held.total() - held.on_host);
        assert!(held.moments_in_flight > 0 && held.moments_in_flight < held.optimizer);
    }

    #[test]
    fn five_ranks_share_the_state_of_the_20b_model() {
        let mut experiment = experiment(Preset::B20, 201_088);
        experiment.train.device = "cuda".into();
        experiment.train.precision = Precision::Bf16;
        experiment.train.global_batch_size = 40;
        let experiment = on_ranks(&experiment, Strategy::Fsdp, 5);
        let state = memory(&experiment).state();
        assert_eq!((state / 100_000_000, state * 10 / GIB), (669, 623), "66.9 GB, 62.3 GiB");
    }

    #[test]
    fn activation_checkpointing_keeps_the_block_inputs() {
        let mut experiment = experiment(Preset::M110, 201_088);
        let model = &experiment.model;
        let borders = (model.num_hidden_layers + 1) * model.hidden_size * 4;
        let choices = model.num_hidden_layers * model.num_experts_per_tok * 8;
        let rows = experiment.train.global_batch_size * experiment.train.sequence_length;
        let wanted = (rows * (borders + choices)).unsigned_abs();
        let kept = memory(&experiment).activations;
        experiment.train.activation_checkpointing = true;
        assert_eq!(memory(&experiment).activations, wanted);
        assert!(kept > 7 * wanted);
    }
}
