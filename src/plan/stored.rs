//! Bytes of what training keeps between steps, by the precision that the experiment names.

use tch::Device;

use super::mesh::{Regions, on_gpu};
use crate::experiment::{Experiment, OptimizerKind, StatePrecision, StoredWeights};
use crate::torch::element_bytes;
use crate::train::{BLOCK, product_kind};

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

/// Bytes of the moments of `regions`: two of each element, or one where Muon steps.
pub fn moments(experiment: &Experiment, regions: Regions) -> u64 {
    let moment = |elements: u64| match experiment.optimizer.state {
        StatePrecision::F32 => F32_BYTES * elements,
        StatePrecision::Bf16 => 2 * elements,
        // A code an element and a scale a block.
        StatePrecision::EightBit => elements + F32_BYTES * elements.div_ceil(BLOCK.unsigned_abs()),
    };
    let of_matrices = match experiment.optimizer.kind {
        OptimizerKind::Adamw => 2 * moment(regions.matrices),
        OptimizerKind::Muon => 2 * moment(regions.matrices - regions.of_blocks) + moment(regions.of_blocks),
    };
    of_matrices + 2 * F32_BYTES * regions.rest
}

/// Bytes of an element of what Muon makes orthogonal.
pub fn ahead_bytes(experiment: &Experiment) -> u64 {
    let device = if on_gpu(&experiment.train) { Device::Cuda(0) } else { Device::Cpu };
    element_bytes(product_kind(device)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_by_hand() {
        let mut experiment = Experiment::default();
        let regions = Regions { matrices: 512, of_blocks: 256, rest: 256 };
        let both = |experiment: &Experiment| (weights(experiment, regions), moments(experiment, regions));
        assert_eq!(both(&experiment), (4 * 768, 8 * 768));
        experiment.train.weights = StoredWeights::Bf16;
        experiment.optimizer.state = StatePrecision::Bf16;
        assert_eq!(both(&experiment), (2 * 512 + 4 * 256, 4 * 512 + 8 * 256));
        experiment.optimizer.state = StatePrecision::EightBit;
        assert_eq!(both(&experiment).1, 2 * (512 + 2 * 4) + 8 * 256);
        experiment.optimizer.kind = OptimizerKind::Muon;
        assert_eq!(both(&experiment).1, 2 * (256 + 4) + (256 + 4) + 8 * 256);
        experiment.optimizer.state = StatePrecision::F32;
        assert_eq!(both(&experiment).1, 8 * 256 + 4 * 256 + 8 * 256);
    }
}
