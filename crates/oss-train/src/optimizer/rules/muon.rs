//! Muon (Keller Jordan, kellerjordan.github.io/posts/muon) for the matrices of blocks: steps along the orthogonal
//! matrix nearest to the momentum, so that all directions of a matrix are trained at the same rate.
//!
//! Updates have the same RMS as AdamW's (arXiv:2502.16982, section 2.2): an orthogonal R x C matrix has a root mean
//! square of 1 / sqrt(max(R, C)) and is scaled by 0.2 sqrt(max(R, C)), so that one learning rate and one decoupled
//! weight decay suit both optimizers.
//!
//! A matrix may span the slices of several ranks. Each rank updates its own slice of the momentum. The ranks then
//! gather the momentum, and each one orthogonalizes the matrices that overlap its slice.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::newton_schulz::{orthogonalize, product_kind};
use crate::optimizer::blockwise::Coding;
use crate::optimizer::moments::MomentSpec;
use crate::optimizer::region::{ParamSlice, Region, SCRATCH};
use crate::optimizer::step::Step;
use crate::optimizer::stochastic::{Draws, Noise, round_to_bf16};
use crate::optimizer::update_rule::{ParamGroup, RegionShape, UnitStep, UpdateRule};
use oss_torch::element_bytes;

/// The typical root mean square of AdamW's updates.
const RMS: f64 = 0.2;

/// Scratch bytes per element processed at a time: the momentum before and after, and f32 copies.
const SCRATCH_BYTES: u64 = 24;

/// The Muon optimizer: steps along the orthogonal matrix nearest to the momentum.
#[derive(Debug)]
pub struct Muon;

impl UpdateRule for Muon {
    fn name(&self) -> &'static str {
        "Muon"
    }

    fn updates(&self, group: ParamGroup) -> bool {
        group == ParamGroup::BlockMatrices
    }

    fn moments(&self) -> &'static [MomentSpec] {
        &[MomentSpec { name: "exp_avg", coding: Coding::First }]
    }

    fn gathered_kind(&self, device: Device) -> Option<Kind> {
        Some(product_kind(device))
    }

    /// The gathered momentum of the whole region, plus the matrices that are orthogonalized at a time.
    fn scratch_bytes(&self, region: &RegionShape) -> u64 {
        let momentum = element_bytes(product_kind(region.device)) as u64 * region.elements;
        let at_once = region.elements.min(SCRATCH.unsigned_abs());
        region.widened_bytes().max(momentum + SCRATCH_BYTES * at_once)
    }

    fn step(
        &self,
        region: &mut Region,
        gradient: &Tensor,
        params: &[ParamSlice],
        unit: UnitStep<'_>,
    ) -> Result<()> {
        let UnitStep { step, layout, shard, row, .. } = unit;
        let kind = product_kind(gradient.device());
        let whole = Tensor::empty([layout.matrices], (kind, gradient.device()));
        let slice = gradient.size()[0];
        let own = whole.narrow(0, slice * shard as i64, slice);
        update_momentum(region, gradient, params, step, &own)?;
        row.all_gather(&whole, "the momentum of a block")?.wait()?;
        for param in params {
            orthogonal_step(region, param, &layout.slots[param.slot].stack_in(&whole), step);
        }
        Ok(())
    }
}

/// Accumulates `gradient`, f32 and flat like the region, into the momentum, and writes the look-ahead momentum
/// (Nesterov: as if the same gradient followed) to `ahead`, flat like the region.
fn update_momentum(
    region: &mut Region,
    gradient: &Tensor,
    params: &[ParamSlice],
    step: &Step,
    ahead: &Tensor,
) -> Result<()> {
    let device = region.weights.device();
    let decay = step.optimizer.momentum().unwrap_or_else(|| unreachable!("Muon has momentum"));
    let moments = region.moments_on_device();
    for param in params {
        let draws = Draws::new(step.seed, step.count, &param.name);
        for (offset, len, first) in param.pieces() {
            let fresh = (gradient.narrow(0, offset, len) / &step.divisor).g_mul_scalar_(1.0 - decay);
            let mut moments = moments.narrow(offset, len);
            let [mut momentum] = moments.wide();
            let _ = momentum.g_mul_scalar_(decay).g_add_(&fresh);
            if !moments.are_wide() {
                moments.store(&[momentum.shallow_clone()], &draws.tensor(first, len, device));
            }
            ahead.narrow(0, offset, len).copy_(&(&momentum * decay + fresh));
        }
    }
    region.write_back_moments(&moments)
}

/// Updates the weights of `param` along the orthogonal matrices nearest to those of `stack`, `[N, R, C]`, which holds
/// the whole parameter.
fn orthogonal_step(region: &mut Region, param: &ParamSlice, stack: &Tensor, step: &Step) {
    let [_, rows, columns] = stack.size()[..] else { unreachable!("a stack of matrices") };
    let (area, end) = (rows * columns, param.first + param.len);
    let lr = step.lr.double_value(&[]);
    let length = RMS * (rows.max(columns) as f64).sqrt() * lr;
    let kept = 1.0 - lr * step.hyper(param.decays).weight_decay;
    let draws = Draws::new(step.seed, step.count, &param.name);
    let at_once = (SCRATCH / area).max(1);
    let last = (end + area - 1) / area;
    for matrix in (param.first / area..last).step_by(at_once as usize) {
        let count = at_once.min(last - matrix);
        let directions = orthogonalize(&stack.narrow(0, matrix, count)).reshape(-1);
        let (from, to) = (param.first.max(matrix * area), end.min((matrix + count) * area));
        let mut change = directions.narrow(0, from - matrix * area, to - from).to_kind(Kind::Float);
        let mut weights = region.weights.narrow(0, param.offset + from - param.first, to - from);
        let mut wide = weights.to_kind(Kind::Float);
        let _ = wide.g_mul_scalar_(kept).g_sub_(&change.g_mul_scalar_(length));
        if weights.kind() != Kind::Float {
            let draws = draws.tensor(from, to - from, weights.device());
            round_to_bf16(&wide, &draws, Noise::Weight, &mut weights);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::storage::StorageConfig;
    use oss_config::{Optimizer, OptimizerKind, ParamDtype, StateDtype};

    const LR: f64 = 1e-2;
    const STEPS: u64 = 4;

    /// A stack of three 16 x 24 matrices at the start of the region, and one 40 x 8 matrix in its last 512 elements.
    const SHAPES: [[i64; 3]; 2] = [[3, 16, 24], [1, 40, 8]];
    const OFFSETS: [i64; 2] = [0, 1280];
    const LEN: i64 = 1792;

    /// The slices of the parameters in elements `from..to` of the region, relative to `from`.
    fn parts(from: i64, to: i64) -> Vec<ParamSlice> {
        let part = |slot: usize| {
            let [offset, numel] = [OFFSETS[slot], SHAPES[slot].iter().product()];
            let [start, end] = [from.max(offset), to.min(offset + numel)];
            let (name, decays) = (format!("w{slot}"), true);
            ParamSlice { name, slot, offset: start - from, len: end - start, first: start - offset, decays }
        };
        (0..2).map(part).filter(|part| part.len > 0).collect()
    }

    /// Values in -1..1 where there are parameters, f32 `[LEN]`.
    fn noise(step: u64, name: &str) -> Tensor {
        let draws = Draws::new(9, step, name).tensor(0, LEN, Device::Cpu);
        let noise = (draws.to_kind(Kind::Double) / 2f64.powi(31)).to_kind(Kind::Float);
        let _ = noise.narrow(0, 1152, 128).zero_();
        let _ = noise.narrow(0, 1600, 192).zero_();
        noise
    }

    fn region(from: i64, to: i64, weights: Kind, state: StateDtype) -> Region {
        let weights = if weights == Kind::Float { ParamDtype::F32 } else { ParamDtype::Bf16 };
        let wide = StorageConfig::f32(Kind::Float);
        let storage = StorageConfig {
            param_dtype: weights,
            optimizer: OptimizerKind::Muon,
            state_dtype: state,
            ..wide
        };
        let region = Region::zeros(to - from, ParamGroup::BlockMatrices, &storage, Device::Cpu);
        region.weights.shallow_clone().copy_(&(noise(0, "weights") * 0.1).narrow(0, from, to - from));
        region
    }

    /// Runs several steps on slices of the region starting at `starts`, as separate ranks would.
    fn stepped(starts: &[i64], weights: Kind, state: StateDtype) -> Vec<Region> {
        let ends = starts[1..].iter().copied().chain([LEN]);
        let bounds: Vec<(i64, i64)> = starts.iter().copied().zip(ends).collect();
        let mut slices: Vec<Region> =
            bounds.iter().map(|(from, to)| region(*from, *to, weights, state)).collect();
        let optimizer = Optimizer {
            kind: OptimizerKind::Muon,
            momentum: Some(0.9),
            weight_decay: 0.3,
            ..Optimizer::default()
        };
        for count in 0..STEPS {
            let step = Step::new(&optimizer, LR, count, 2.0, 5, Device::Cpu);
            let gradient = noise(count, "gradient") * 1e-3;
            let ahead = Tensor::empty([LEN], (Kind::Float, Device::Cpu));
            for ((from, to), slice) in bounds.iter().zip(&mut slices) {
                let [gradient, ahead] = [&gradient, &ahead].map(|flat| flat.narrow(0, *from, to - from));
                update_momentum(slice, &gradient, &parts(*from, *to), &step, &ahead).unwrap();
            }
            for ((from, to), slice) in bounds.iter().zip(&mut slices) {
                for part in parts(*from, *to) {
                    let numel = SHAPES[part.slot].iter().product();
                    let stack = ahead.narrow(0, OFFSETS[part.slot], numel).view(SHAPES[part.slot]);
                    orthogonal_step(slice, &part, &stack, &step);
                }
            }
        }
        slices
    }

    /// The same in f64, one matrix at a time, applying the quintic to singular values from an SVD.
    fn reference() -> Tensor {
        let weights = (noise(0, "weights") * 0.1).to_kind(Kind::Double);
        for (shape, offset) in SHAPES.into_iter().zip(OFFSETS) {
            let [count, rows, columns] = shape;
            for matrix in 0..count {
                let of = |flat: &Tensor| {
                    let flat = flat.narrow(0, offset + matrix * rows * columns, rows * columns);
                    flat.view([rows, columns]).to_kind(Kind::Double)
                };
                let mut momentum = Tensor::zeros([rows, columns], (Kind::Double, Device::Cpu));
                let mut moved = of(&weights);
                for step in 0..STEPS {
                    let gradient = of(&(noise(step, "gradient") * 1e-3)) / 2.0;
                    momentum = momentum * 0.9 + &gradient;
                    let ahead = gradient + &momentum * 0.9;
                    let (u, s, v) = ahead.svd(true, true);
                    let mut s = &s / s.norm();
                    for _ in 0..5 {
                        s = &s * 3.4445 - s.pow_tensor_scalar(3) * 4.7750 + s.pow_tensor_scalar(5) * 2.0315;
                    }
                    let direction = (u * s).matmul(&v.transpose(0, 1));
                    moved =
                        moved * (1.0 - LR * 0.3) - direction * (LR * 0.2 * (rows.max(columns) as f64).sqrt());
                }
                of(&weights).copy_(&moved);
            }
        }
        weights
    }

    const WAYS: [(Kind, StateDtype, f64); 5] = [
        (Kind::Float, StateDtype::F32, 1e-4),
        (Kind::Float, StateDtype::Bf16, 2e-2),
        (Kind::Float, StateDtype::EightBit, 6e-2),
        (Kind::BFloat16, StateDtype::F32, 0.1),
        (Kind::BFloat16, StateDtype::EightBit, 0.1),
    ];

    #[test]
    fn every_precision_matches_reference_muon() {
        let (expected, start) = (reference(), (noise(0, "weights") * 0.1).to_kind(Kind::Double));
        for (weights, state, bound) in WAYS {
            let seen = stepped(&[0], weights, state).remove(0).weights.to_kind(Kind::Double);
            let error = f64::try_from((seen - &expected).norm() / (&expected - &start).norm()).unwrap();
            assert!(error < bound, "{weights:?} weights, {state:?} state: {error:e}");
        }
    }

    #[test]
    fn slices_that_split_matrices_are_updated_like_the_whole() {
        for (weights, state, _) in WAYS {
            let whole = stepped(&[0], weights, state).remove(0);
            for starts in [vec![0, 512, 1024, 1536], vec![0, 256], vec![0, 1280]] {
                let slices = stepped(&starts, weights, state);
                let joined: Vec<&Tensor> = slices.iter().map(|slice| &slice.weights).collect();
                let apart = (Tensor::cat(&joined, 0) - &whole.weights).to_kind(Kind::Float).abs();
                // Where the last bits of f32 decide how bf16 is rounded, a few values round the other way.
                let differ = apart.gt(1e-6).to_kind(Kind::Float).mean(None).double_value(&[]);
                assert!(differ < 0.01, "{starts:?}, {weights:?} weights, {state:?} state: {differ}");
            }
        }
    }

    #[test]
    fn only_the_momentum_is_stored() {
        let region = region(0, LEN, Kind::Float, StateDtype::F32);
        let names: Vec<String> = region.state().iter().map(|stored| stored.name("w")).collect();
        assert_eq!(names, ["optimizer.exp_avg/w"]);
    }
}
