//! Bytes of what training keeps between steps, by the precision that the experiment names.

use super::mesh::Regions;
use crate::experiment::{Experiment, StatePrecision, StoredWeights};
use crate::train::BLOCK;

/// Bytes of an f32 number.
pub const F32_BYTES: u64 = 4;

/// Bytes of one kept matrix element.
pub fn matrix_bytes(experiment: &Experiment) -> u64 {
    match experiment.train.weights {
        StoredWeights::F32 => F32_BYTES,
        StoredWeights::Bf16 => 2,
    }
}

/// Bytes of the kept weights of `regions`: whatever is no matrix is f32.
pub fn weights(experiment: &Experiment, regions: Regions) -> u64 {
    matrix_bytes(experiment) * regions.matrices + F32_BYTES * regions.rest
}

/// Bytes of both moments of `regions`.
pub fn moments(experiment: &Experiment, regions: Regions) -> u64 {
    let of_matrices = match experiment.optimizer.state {
        StatePrecision::F32 => 2 * F32_BYTES * regions.matrices,
        StatePrecision::Bf16 => 2 * 2 * regions.matrices,
        // A code an element and a scale a block, for each moment.
        StatePrecision::EightBit => {
            2 * (regions.matrices + F32_BYTES * regions.matrices.div_ceil(BLOCK.unsigned_abs()))
        }
    };
    of_matrices + 2 * F32_BYTES * regions.rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_by_hand() {
        let mut experiment = Experiment::default();
        let regions = Regions { matrices: 512, rest: 256 };
        let both = |experiment: &Experiment| (weights(experiment, regions), moments(experiment, regions));
        assert_eq!(both(&experiment), (4 * 768, 8 * 768));
        experiment.train.weights = StoredWeights::Bf16;
        experiment.optimizer.state = StatePrecision::Bf16;
        assert_eq!(both(&experiment), (2 * 512 + 4 * 256, 4 * 512 + 8 * 256));
        experiment.optimizer.state = StatePrecision::EightBit;
        assert_eq!(both(&experiment).1, 2 * (512 + 2 * 4) + 8 * 256);
    }
}
