//! Size of the training state stored between steps, by dtype.

use super::mesh::Regions;
use oss_config::{Experiment, ParamDtype};
use oss_train::optimizer::StorageConfig;

/// Size of an f32.
pub const F32_BYTES: u64 = 4;

/// Bytes per stored matrix element.
pub fn matrix_bytes(experiment: &Experiment) -> u64 {
    match experiment.train.param_dtype {
        ParamDtype::F32 => F32_BYTES,
        ParamDtype::Bf16 => 2,
    }
}

/// Bytes of the stored weights of `regions`; everything except matrices is f32.
pub fn weights(experiment: &Experiment, regions: Regions) -> u64 {
    matrix_bytes(experiment) * regions.matrices + F32_BYTES * regions.rest
}

/// Bytes of the optimizer state for `regions`.
pub fn moments(experiment: &Experiment, regions: Regions) -> u64 {
    let storage = StorageConfig::new(experiment);
    regions.groups().into_iter().map(|(group, elements)| storage.state_bytes(group, elements)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::{OptimizerKind, StateDtype};

    #[test]
    fn bytes_by_hand() {
        let mut experiment = Experiment::default();
        let regions = Regions { matrices: 512, of_blocks: 256, rest: 256 };
        let both = |experiment: &Experiment| (weights(experiment, regions), moments(experiment, regions));
        assert_eq!(both(&experiment), (4 * 768, 8 * 768));
        experiment.train.param_dtype = ParamDtype::Bf16;
        experiment.optimizer.state_dtype = StateDtype::Bf16;
        assert_eq!(both(&experiment), (2 * 512 + 4 * 256, 4 * 512 + 8 * 256));
        experiment.optimizer.state_dtype = StateDtype::EightBit;
        assert_eq!(both(&experiment).1, 2 * (512 + 2 * 4) + 8 * 256);
        experiment.optimizer.kind = OptimizerKind::Muon;
        assert_eq!(both(&experiment).1, 2 * (256 + 4) + (256 + 4) + 8 * 256);
        experiment.optimizer.state_dtype = StateDtype::F32;
        assert_eq!(both(&experiment).1, 8 * 256 + 4 * 256 + 8 * 256);
    }
}
