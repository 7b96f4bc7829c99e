//! Initial weights: a pure function of (seed, parameter name, element index), independent of ranks and device.
//!
//! Element pair i of a parameter comes from word 4i of the ChaCha8 stream keyed by (seed, name), turned into two
//! normally distributed numbers by the Box-Muller transform in f64. `libm` is used instead of the system's math library
//! so that the numbers are the same on every machine.

use std::ops::Range;

use anyhow::{Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::parameters::{Init, Parameter, ParameterSpec};
use super::weights::{WeightSource, check_range};
use oss_config::Model;
use oss_torch::OwnedTensor;

/// Elements filled per task; even, so that no pair is split.
const CHUNK: usize = 1 << 14;

/// Words of the stream consumed per pair of elements.
const WORDS_PER_PAIR: u128 = 4;

/// Fills `out` with the parameter's elements from `start`, which may be any index.
pub fn fill_normal(seed: u64, name: &str, std: f64, start: usize, out: &mut [f32]) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"oss-run initial weights 1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let key = *hasher.finalize().as_bytes();
    // If `start` is in the middle of a pair, that pair's first number is dropped.
    let skip = start % 2;
    out[..].par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        let first = start + chunk * CHUNK - skip;
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_word_pos((first / 2) as u128 * WORDS_PER_PAIR);
        let mut position = 0;
        let mut dropped = skip;
        while position < out.len() {
            for value in normal_pair(&mut rng) {
                if dropped > 0 {
                    dropped -= 1;
                } else if position < out.len() {
                    out[position] = (value * std) as f32;
                    position += 1;
                }
            }
        }
    });
}

/// Two independent standard normal numbers (Box and Muller, 1958).
fn normal_pair(rng: &mut ChaCha8Rng) -> [f64; 2] {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    // The first uniform number is in (0, 1], so that its logarithm is finite.
    let radius = ((rng.next_u64() >> 11) + 1) as f64 * UNIT;
    let angle = (rng.next_u64() >> 11) as f64 * UNIT * std::f64::consts::TAU;
    let radius = libm::sqrt(-2.0 * libm::log(radius));
    let (sin, cos) = libm::sincos(angle);
    [radius * cos, radius * sin]
}

/// A weight source that generates a model's initial weights.
#[derive(Debug)]
pub struct Initial {
    model: Model,
    seed: u64,
}

impl Initial {
    /// Initial weights of `model` for `seed`, with the model's `initializer_range`.
    pub fn new(model: &Model, seed: u64) -> Self {
        Self { model: model.clone(), seed }
    }

    fn spec(&self, parameter: Parameter) -> Result<ParameterSpec> {
        ensure!(parameter.is_in(&self.model), "the model has no parameter {}", parameter.name());
        Ok(ParameterSpec::new(parameter, &self.model))
    }
}

impl WeightSource for Initial {
    fn load(&mut self, parameter: Parameter) -> Result<Tensor> {
        let spec = self.spec(parameter)?;
        Ok(self.read(parameter, 0..spec.numel())?.reshape(spec.shape))
    }

    fn read(&mut self, parameter: Parameter, range: Range<i64>) -> Result<Tensor> {
        let spec = self.spec(parameter)?;
        check_range(parameter, &spec.shape, &range)?;
        let (shape, options) = ([range.end - range.start], (Kind::Float, Device::Cpu));
        Ok(match parameter.init() {
            Init::Zeros => Tensor::zeros(shape, options),
            Init::Ones => Tensor::ones(shape, options),
            Init::Normal => {
                let mut tensor = OwnedTensor::empty(&shape, Kind::Float);
                let out = tensor.slice_mut::<f32>();
                fill_normal(self.seed, &spec.name, self.model.initializer_range, range.start as usize, out);
                tensor.into_tensor()
            }
        })
    }

    fn shape(&mut self, parameter: Parameter) -> Result<Vec<i64>> {
        Ok(self.spec(parameter)?.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BlockParameter;
    use oss_config::Preset;

    fn normal(seed: u64, name: &str, start: usize, len: usize) -> Vec<f32> {
        let mut out = vec![0.0; len];
        fill_normal(seed, name, 0.02, start, &mut out);
        out
    }

    #[test]
    fn a_slice_equals_the_same_part_of_the_whole() {
        let whole = normal(7, "w", 0, 3 * CHUNK + 5);
        for start in [0, 1, 2, CHUNK - 1, CHUNK, CHUNK + 3, 2 * CHUNK + 1] {
            assert_eq!(normal(7, "w", start, CHUNK + 2), whole[start..start + CHUNK + 2], "from {start}");
        }
    }

    #[test]
    fn any_range_of_a_parameter_equals_that_part_of_the_whole() {
        let model = Model { vocab_size: Some(40), ..Preset::Tiny.model() };
        let mut source = Initial::new(&model, 3);
        for spec in crate::model::parameters(&model) {
            source.check_shape(&spec).unwrap();
            let whole = source.load(spec.parameter).unwrap();
            assert_eq!(whole.size(), spec.shape);
            let numel = spec.numel();
            for (start, end) in [(0, numel), (0, 0), (numel, numel), (numel / 3, numel - 1), (1, numel / 2)] {
                let (start, end) = (start.min(end), end);
                let part = source.read(spec.parameter, start..end).unwrap();
                assert!(part.equal(&whole.flatten(0, -1).narrow(0, start, end - start)), "{}", spec.name);
            }
            for range in [-1..1, 0..numel + 1] {
                let error = source.read(spec.parameter, range).unwrap_err().to_string();
                assert!(error.contains(&spec.name), "{error}");
            }
        }
        let layer = model.num_hidden_layers as usize;
        let beyond = Parameter::Block { layer, parameter: BlockParameter::Sinks };
        assert!(source.read(beyond, 0..1).is_err());
    }

    #[test]
    fn numbers_depend_on_the_seed_and_the_name() {
        assert_ne!(normal(7, "w", 0, 8), normal(8, "w", 0, 8));
        assert_ne!(normal(7, "w", 0, 8), normal(7, "v", 0, 8));
    }

    #[test]
    fn moments_match_the_normal_distribution() {
        let numbers = normal(1, "w", 0, 1 << 18);
        let n = numbers.len() as f64;
        let moment = |power: i32| numbers.iter().map(|&x| (f64::from(x) / 0.02).powi(power)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.01, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.01, "variance {}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.06, "fourth moment {}", moment(4));
    }

    #[test]
    fn the_numbers_never_change() {
        // Golden values: a change to the generator would silently break every run's reproducibility.
        let seen: Vec<u32> = normal(0, "lm_head.weight", 0, 3).iter().map(|x| x.to_bits()).collect();
        assert_eq!(seen, [1_018_641_701, 1_023_783_858, 1_007_184_099], "bits of the first three numbers");
    }
}
