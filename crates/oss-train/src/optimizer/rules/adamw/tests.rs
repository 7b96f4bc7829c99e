//! Compares every update path with a reference AdamW in f64.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::optimizer::StorageConfig;
use crate::optimizer::clip::clipped_lrs;
use oss_config::{Optimizer, ParamDtype, StateDtype};

const STEPS: u64 = 12;
const LR: f64 = 3e-3;

/// One parameter of 700 elements, sliced from its element 256 on, after a block of another parameter without weight
/// decay.
fn parts() -> Vec<ParamSlice> {
    let part = |name: &str, slot, offset, len, first, decays| ParamSlice {
        name: name.to_owned(),
        slot,
        offset,
        len,
        first,
        decays,
    };
    vec![part("norm", 0, 0, 100, 0, false), part("w", 1, 256, 700, 256, true)]
}

const LEN: i64 = 1024;

fn flat(number: impl Fn(i64) -> f64) -> Tensor {
    let inside = |i: i64| i < 100 || (256..956).contains(&i);
    let numbers: Vec<f32> = (0..LEN).map(|i| if inside(i) { number(i) as f32 } else { 0.0 }).collect();
    Tensor::from_slice(&numbers)
}

/// A gradient with a constant and a noisy component.
fn gradient(step: u64) -> Tensor {
    // Does not use libtorch's global generator, which concurrent tests seed.
    let draws = Draws::new(9, step, "gradient").tensor(0, LEN, Device::Cpu);
    let noise = numbers(&(draws.to_kind(Kind::Double) / 2f64.powi(31)));
    flat(|i| 1e-3 * ((i % 17) as f64 - 5.0) + 4e-3 * noise[i as usize])
}

fn optimizer() -> Optimizer {
    Optimizer { betas: [0.8, 0.9], weight_decay: 0.3, ..Optimizer::default() }
}

fn zeros(len: i64, weights: Kind, state: StateDtype) -> Region {
    let weights = if weights == Kind::Float { ParamDtype::F32 } else { ParamDtype::Bf16 };
    let storage =
        StorageConfig { param_dtype: weights, state_dtype: state, ..StorageConfig::f32(Kind::Float) };
    Region::zeros(len, ParamGroup::BlockMatrices, &storage, Device::Cpu)
}

fn region(weights: Kind, state: StateDtype) -> Region {
    let region = zeros(LEN, weights, state);
    region.weights.shallow_clone().copy_(&flat(|i| 0.02 * (i as f64 * 0.7).sin()));
    region
}

fn nth_step(count: u64, divisor: f64) -> Step {
    Step::new(&optimizer(), LR, count, divisor, 5, Device::Cpu)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
}

/// AdamW with decoupled weight decay, element by element; `clip` shortens steps by the RMS of g^2 / v.
struct Reference {
    weights: Vec<f64>,
    moments: Vec<[f64; 2]>,
    count: i32,
}

impl Reference {
    fn new(region: &Region) -> Self {
        Self { weights: numbers(&region.weights), moments: vec![[0.0; 2]; LEN as usize], count: 0 }
    }

    fn step(&mut self, gradient: &Tensor, divisor: f64, clip: bool) {
        let Optimizer { betas: [beta1, beta2], eps, weight_decay, .. } = optimizer();
        self.count += 1;
        let gradient = numbers(gradient);
        let correct = |moment: f64, beta: f64| moment / (1.0 - beta.powi(self.count));
        for ParamSlice { offset, len, decays, .. } in parts() {
            let mut ratio = 0.0;
            for i in (offset..offset + len).map(|i| i as usize) {
                let (g, [m, v]) = (gradient[i] / divisor, self.moments[i]);
                self.moments[i] = [beta1 * m + (1.0 - beta1) * g, beta2 * v + (1.0 - beta2) * g * g];
                ratio += g * g / correct(self.moments[i][1], beta2).max(eps * eps) / len as f64;
            }
            let lr = if clip { LR / ratio.sqrt().max(1.0) } else { LR };
            for i in (offset..offset + len).map(|i| i as usize) {
                let [m, v] = self.moments[i];
                let decay = if decays { weight_decay } else { 0.0 };
                let update = correct(m, beta1) / (correct(v, beta2).sqrt() + eps);
                self.weights[i] -= lr * (update + decay * self.weights[i]);
            }
        }
    }

    /// The distance of `region` from the reference, relative to the distance that the reference moved.
    fn error(&self, region: &Region, start: &[f64]) -> f64 {
        let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        (square(&numbers(&region.weights), &self.weights) / square(start, &self.weights)).sqrt()
    }
}

/// Runs one step with the operations that are used on GPUs.
fn step_all_by_tensors(region: &Region, gradient: &Tensor, step: &Step) {
    for part in parts() {
        let mut moments = region.moments.narrow(0, LEN);
        step_by_tensors(region, &gradient.copy(), &mut moments, &part, &step.lr, step).unwrap();
    }
}

#[test]
fn slices_and_tensors_take_the_same_steps() {
    for (weights, state, bound) in WAYS {
        let (mut by_slices, by_tensors) = (region(weights, state), region(weights, state));
        let (mut reference, start) = (Reference::new(&by_slices), numbers(&by_slices.weights));
        for count in 0..STEPS {
            let (gradient, step) = (gradient(count), nth_step(count, 2.5));
            reference.step(&gradient, 2.5, false);
            update(&mut by_slices, &gradient.copy(), &parts(), &step, None).unwrap();
            step_all_by_tensors(&by_tensors, &gradient, &step);
            let apart = (&by_slices.weights - &by_tensors.weights).to_kind(Kind::Float).abs();
            // Where the last bits of f32 decide, a few values round the other way.
            let differ = apart.gt(1e-6).to_kind(Kind::Float).mean(None).double_value(&[]);
            assert!(differ < 0.02, "{weights:?} weights, {state:?} state, step {count}: {differ}");
        }
        let error = reference.error(&by_tensors, &start);
        assert!(error < bound, "{weights:?} weights, {state:?} state: {error:e}");
    }
}

#[test]
fn slices_and_tensors_encode_moments_identically() {
    tch::manual_seed(4);
    let draws = Draws::new(1, 2, "w");
    for state in [StateDtype::Bf16, StateDtype::EightBit] {
        let moments = || Moments::zeros(AdamW.moments(), state, LEN, Device::Cpu);
        let (mut by_tensors, mut by_slices) = (moments(), moments());
        let noise = Tensor::randn([LEN], (Kind::Float, Device::Cpu)).exp();
        let wide = [Tensor::randn([LEN], (Kind::Float, Device::Cpu)) * &noise, noise.square()];
        by_tensors.store(&wide, &draws.tensor(300, LEN, Device::Cpu));
        adamw_cpu::store(&mut by_slices, &wide, (draws, 300));
        for (one, other) in by_tensors.state().iter().zip(by_slices.state()) {
            let [one, kept] = [one.tensor, other.tensor].map(|tensor| tensor.view_dtype(Kind::Uint8));
            assert_eq!(one, kept, "{}", other.name("w"));
        }
        for (one, other) in by_tensors.wide::<2>().into_iter().zip(adamw_cpu::load(&mut by_slices)) {
            assert_eq!(Vec::<f32>::try_from(one).unwrap(), other);
        }
    }
}

#[test]
#[should_panic(expected = "shares memory")]
fn weights_cannot_alias_their_gradient() {
    let gradient = Tensor::zeros([LEN], (Kind::Float, Device::Cpu));
    let mut weights = gradient.view_dtype(Kind::BFloat16).narrow(0, LEN, LEN);
    let mut moments = Moments::zeros(AdamW.moments(), StateDtype::Bf16, LEN, Device::Cpu);
    let draws = Draws::new(1, 1, "w");
    adamw_cpu::step(&mut weights, &gradient, &mut moments, (draws, 0), 1e-3, false, &nth_step(0, 1.0));
}

#[test]
fn slices_and_tensors_compute_the_same_rms_ratios() {
    for (weights, state, _) in WAYS {
        let mut region = region(weights, state);
        update(&mut region, &gradient(0), &parts(), &nth_step(0, 1.0), None).unwrap();
        let (gradient, step) = (gradient(1) * 2.0, nth_step(1, 1.0));
        for part in parts() {
            let len = (part.len + 255) / 256 * 256;
            let by_slices = adamw_cpu::rms_ratio(
                &gradient.narrow(0, part.offset, len),
                &mut region.moments.narrow(part.offset, len),
                &step,
            );
            let by_tensors = rms_ratio_by_tensors(&region, &gradient, &part, &step).double_value(&[]);
            assert!((by_slices / by_tensors - 1.0).abs() < 1e-5, "{state:?}: {by_slices} and {by_tensors}");
        }
    }
}

/// The error after several steps, with gradients multiplied by `size(step)` and divided by `divisor`.
fn error(weights: Kind, state: StateDtype, clip: bool, size: impl Fn(u64) -> f64) -> f64 {
    let mut region = region(weights, state);
    let (mut reference, start) = (Reference::new(&region), numbers(&region.weights));
    let divisor = 2.5;
    for count in 0..STEPS {
        let gradient = gradient(count) * size(count);
        reference.step(&gradient, divisor, clip);
        let step = nth_step(count, divisor);
        let lrs = clip.then(|| {
            let sums = Tensor::zeros([2], (Kind::Double, Device::Cpu));
            AdamW.add_rms_ratios(&region, &gradient, &parts(), &step, &sums);
            clipped_lrs(&step, &sums, &Tensor::from_slice(&[100.0, 700.0]))
        });
        update(&mut region, &gradient.copy(), &parts(), &step, lrs.as_ref()).unwrap();
    }
    reference.error(&region, &start)
}

const WAYS: [(Kind, StateDtype, f64); 5] = [
    (Kind::Float, StateDtype::F32, 1e-5),
    (Kind::Float, StateDtype::Bf16, 1e-2),
    (Kind::Float, StateDtype::EightBit, 6e-2),
    (Kind::BFloat16, StateDtype::F32, 2e-2),
    (Kind::BFloat16, StateDtype::EightBit, 6e-2),
];

#[test]
fn every_precision_matches_reference_adamw() {
    for (weights, state, bound) in WAYS {
        let error = error(weights, state, false, |_| 1.0);
        assert!(error < bound, "{weights:?} weights, {state:?} state: {error:e}");
    }
}

#[test]
fn growing_gradients_are_clipped_as_in_the_reference() {
    let growing = |step: u64| 1.5f64.powi(step as i32);
    for (weights, state, bound) in WAYS {
        let error = error(weights, state, true, growing);
        assert!(error < bound, "{weights:?} weights, {state:?} state: {error:e}");
    }
    // Without anything to clip, the test would pass trivially.
    let mut region = region(Kind::Float, StateDtype::F32);
    let sums = Tensor::zeros([2], (Kind::Double, Device::Cpu));
    update(&mut region, &gradient(0), &parts(), &nth_step(0, 1.0), None).unwrap();
    AdamW.add_rms_ratios(&region, &(gradient(0) * 1.5), &parts(), &nth_step(1, 1.0), &sums);
    let lrs = numbers(&clipped_lrs(&nth_step(1, 1.0), &sums, &Tensor::from_slice(&[100.0, 700.0])));
    assert!(lrs.iter().all(|lr| *lr < 0.9 * LR), "{lrs:?}");
}

#[test]
fn steps_below_the_clipping_threshold_are_unchanged() {
    for (weights, state, _) in WAYS {
        let [mut plain, mut clipped] = [0; 2].map(|_| region(weights, state));
        for count in 0..STEPS {
            let shrinking = gradient(0) * 0.8f64.powi(count as i32);
            let step = nth_step(count, 1.0);
            let sums = Tensor::zeros([2], (Kind::Double, Device::Cpu));
            AdamW.add_rms_ratios(&clipped, &shrinking, &parts(), &step, &sums);
            let lrs = clipped_lrs(&step, &sums, &Tensor::from_slice(&[100.0, 700.0]));
            update(&mut clipped, &shrinking.copy(), &parts(), &step, Some(&lrs)).unwrap();
            update(&mut plain, &shrinking, &parts(), &step, None).unwrap();
        }
        assert!(plain.weights.equal(&clipped.weights), "{weights:?} weights, {state:?} state");
    }
}

#[test]
fn a_slice_is_updated_like_its_range_of_the_whole() {
    for (weights, state, _) in WAYS {
        let mut whole = region(weights, state);
        let mut slice = zeros(512, weights, state);
        slice.weights.shallow_clone().copy_(&whole.weights.narrow(0, 512, 512));
        let part = ParamSlice { offset: 0, len: 444, first: 512, ..parts().remove(1) };
        for count in 0..STEPS {
            update(
                &mut slice,
                &gradient(count).narrow(0, 512, 512),
                std::slice::from_ref(&part),
                &nth_step(count, 1.0),
                None,
            )
            .unwrap();
            update(&mut whole, &gradient(count), &parts(), &nth_step(count, 1.0), None).unwrap();
        }
        assert!(slice.weights.equal(&whole.weights.narrow(0, 512, 512)), "{weights:?}, {state:?}");
        assert_eq!(
            whole.weights.narrow(0, 956, 68).count_nonzero(None).int64_value(&[]),
            0,
            "padding stays zero"
        );
    }
}

#[test]
fn bf16_weights_accumulate_updates_smaller_than_their_spacing() {
    let mut region = region(Kind::BFloat16, StateDtype::F32);
    let _ = region.weights.fill_(1.0);
    for count in 0..100 {
        // 1e-4 per step, where the spacing of bf16 just below 1 is 4e-3.
        let step =
            Step::new(&Optimizer { weight_decay: 0.0, ..optimizer() }, 1e-4, count, 1.0, 5, Device::Cpu);
        update(&mut region, &flat(|_| 1.0), &parts(), &step, None).unwrap();
    }
    let mean = region.weights.narrow(0, 256, 700).mean(Kind::Double).double_value(&[]);
    assert!((mean - 0.99).abs() < 3e-4, "{mean}");
}
