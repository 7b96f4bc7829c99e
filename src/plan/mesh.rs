//! The mesh of replicas and shards, and the part of each unit that a rank holds.

use serde::Serialize;
use tch::{Cuda, Device};

use oss_config::{Backend, Model, Sharding, Strategy, Train};
use oss_train::distributed::Layout;
use oss_train::model::num_units;
use oss_train::optimizer::ParamGroup;

/// GPUs per machine assumed for hsdp if the experiment does not set the number of shards.
const USUAL_GPUS: u64 = 8;

/// A mesh of `shards` by `replicas` ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mesh {
    /// Ranks that share one copy of the model.
    pub shards: u64,
    /// Copies of the model.
    pub replicas: u64,
    /// The number of ranks per replica depends on the machines, and is assumed here.
    pub assumed: bool,
}

impl Mesh {
    /// The mesh described by `sharding`.
    pub fn of(sharding: &Sharding) -> Self {
        let ranks = sharding.ranks.max(1);
        let usual =
            || (1..=USUAL_GPUS.min(ranks)).rev().find(|count| ranks.is_multiple_of(*count)).unwrap_or(1);
        let (shards, assumed) = match (sharding.strategy, sharding.shard_degree) {
            (Strategy::None | Strategy::Ddp, _) => (1, false),
            (Strategy::Fsdp, _) => (ranks, false),
            (Strategy::Hsdp, Some(replica)) => (replica.clamp(1, ranks), false),
            (Strategy::Hsdp, None) => (usual(), true),
        };
        Self { shards, replicas: ranks / shards, assumed }
    }

    /// Total number of ranks.
    pub fn ranks(&self) -> u64 {
        self.shards * self.replicas
    }
}

/// The two flat regions of a unit, in elements, padded to split evenly between shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// Matrices, which are cast to the training precision.
    pub matrices: u64,
    /// Those of them that belong to blocks.
    pub of_blocks: u64,
    /// Router and vectors, which stay in f32.
    pub rest: u64,
}

impl Regions {
    /// Total number of elements.
    pub fn elements(&self) -> u64 {
        self.matrices + self.rest
    }

    /// Number of elements of each parameter group.
    pub fn groups(&self) -> [(ParamGroup, u64); 3] {
        [
            (ParamGroup::BlockMatrices, self.of_blocks),
            (ParamGroup::VocabularyMatrices, self.matrices - self.of_blocks),
            (ParamGroup::Rest, self.rest),
        ]
    }
}

/// The regions of every unit in order, padded for `shards` ranks; the model's `vocab_size` must be set.
pub fn regions(model: &Model, shards: u64) -> Vec<Regions> {
    let of = |unit| {
        let layout = Layout::new(model, unit, shards as usize);
        Regions {
            matrices: layout.matrices.unsigned_abs(),
            of_blocks: layout.matrices_of_blocks().unsigned_abs(),
            rest: layout.rest.unsigned_abs(),
        }
    };
    (0..num_units(model)).map(of).collect()
}

/// Whether the model is trained on GPUs; `auto` checks this machine.
pub fn on_gpu(train: &Train) -> bool {
    match train.device.as_str() {
        "cpu" => false,
        "auto" => Cuda::is_available(),
        _ => true,
    }
}

/// The type of device that the model is trained on.
pub fn device(train: &Train) -> Device {
    if on_gpu(train) { Device::Cuda(0) } else { Device::Cpu }
}

/// Whether Gloo is the communication backend.
pub fn uses_gloo(sharding: &Sharding, train: &Train) -> bool {
    match sharding.backend {
        Backend::Gloo => true,
        Backend::Nccl => false,
        Backend::Auto => !on_gpu(train),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::Preset;

    #[test]
    fn each_strategy_has_its_mesh() {
        let mesh = |strategy, ranks, shard_degree| {
            let mesh = Mesh::of(&Sharding { strategy, ranks, shard_degree, ..Sharding::default() });
            assert_eq!(mesh.ranks(), ranks);
            (mesh.shards, mesh.replicas, mesh.assumed)
        };
        assert_eq!(mesh(Strategy::None, 1, None), (1, 1, false));
        assert_eq!(mesh(Strategy::Ddp, 4, None), (1, 4, false));
        assert_eq!(mesh(Strategy::Fsdp, 5, None), (5, 1, false));
        assert_eq!(mesh(Strategy::Hsdp, 16, Some(4)), (4, 4, false));
        assert_eq!(mesh(Strategy::Hsdp, 16, None), (8, 2, true));
        assert_eq!(mesh(Strategy::Hsdp, 12, None), (6, 2, true));
        assert_eq!(mesh(Strategy::Hsdp, 2, None), (2, 1, true));
    }

    /// Width 64, 4 heads of 16 with 2 for keys and values, 4 experts of width 64, vocabulary 100.
    #[test]
    fn regions_by_hand() {
        let model = Model { vocab_size: Some(100), ..Preset::Tiny.model() };
        let units = regions(&model, 1);
        let embedding = Regions { matrices: 6400, of_blocks: 0, rest: 0 };
        // q 4096, k and v 2048 each, out 4096; gate and up 4*64*128, down 4*64*64.
        let matrices = 4096 + 2 * 2048 + 4096 + 32768 + 16384;
        // Router 256; norms 2*64; biases 64, 32, 32, 64; sinks 4; router's bias 4; experts' biases 512 and 256.
        // Those below 256 are padded to 256.
        let rest = 256 + 2 * 256 + 4 * 256 + 256 + 256 + 512 + 256;
        let block = Regions { matrices, of_blocks: matrices, rest };
        assert_eq!(units, [embedding, block, block, Regions { rest: 256, ..embedding }]);
        // With three shards, regions are multiples of 768: 6400 is 8.3 times that, and 256 a third of it.
        let cut = regions(&model, 3);
        assert_eq!((cut[0].matrices, cut[3].rest), (9 * 768, 768));
        assert_eq!(cut[1].elements() % (3 * 256), 0);
    }
}
