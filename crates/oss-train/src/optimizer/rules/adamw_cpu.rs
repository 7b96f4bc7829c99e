//! The AdamW step for low-precision weights and moments on the CPU: one pass over memory instead of thirty libtorch
//! operations.
//!
//! Each block of 256 elements is widened into the L1 cache, stepped and rounded back. Draws, codes and rounding match
//! [`stochastic`](crate::optimizer::stochastic) and [`blockwise`](crate::optimizer::blockwise) bit for bit. Sums are
//! accumulated in a fixed order, regardless of the number of threads.
#![expect(unsafe_code, reason = "loops over tensor memory need it, as in the kernels")]

use half::bf16;
use multiversion::multiversion;
use tch::{Kind, Tensor};

use crate::optimizer::blockwise::{BLOCK, Coding, MIN_SCALE};
use crate::optimizer::moments::Moments;
use crate::optimizer::step::Step;
use crate::optimizer::stochastic::{Draws, Noise};
use oss_torch::{AdamWOptions, Slices, parallel_each, shares};

const LEN: usize = BLOCK as usize;

/// Minimum number of blocks per thread.
const MIN_SHARE: usize = 64;

/// Maximum number of f32 lanes in a vector register; sums use as many accumulators.
const LANES: usize = 16;

type Block = [f32; LEN];

/// Values in their storage dtype, in whole blocks.
pub enum StoredSlice<'a> {
    /// f32 values.
    F32(&'a mut [f32]),
    /// bf16 values.
    Bf16(&'a mut [bf16]),
    /// 8-bit codes and their block scales.
    Codes(Coding, &'a mut [u8], &'a mut [f32]),
}

impl<'a> StoredSlice<'a> {
    /// The values of a contiguous tensor, f32 or bf16 `[n]`.
    pub fn floats(memory: &'a Slices, tensor: &'a mut Tensor) -> Self {
        match tensor.kind() {
            Kind::BFloat16 => Self::Bf16(memory.of_mut(tensor)),
            _ => Self::F32(memory.of_mut(tensor)),
        }
    }

    /// The values of contiguous tensors of codes, 8 bits `[n]`, and scales, f32 `[n / 256]`.
    pub fn codes(memory: &'a Slices, coding: Coding, codes: &'a mut Tensor, scales: &'a mut Tensor) -> Self {
        Self::Codes(coding, memory.bytes_of_mut(codes), memory.of_mut(scales))
    }

    fn split_at(self, blocks: usize) -> (Self, Self) {
        let elements = blocks * LEN;
        match self {
            Self::F32(all) => {
                let (a, b) = all.split_at_mut(elements);
                (Self::F32(a), Self::F32(b))
            }
            Self::Bf16(all) => {
                let (a, b) = all.split_at_mut(elements);
                (Self::Bf16(a), Self::Bf16(b))
            }
            Self::Codes(coding, codes, scales) => {
                let ((a, b), (c, d)) = (codes.split_at_mut(elements), scales.split_at_mut(blocks));
                (Self::Codes(coding, a, c), Self::Codes(coding, b, d))
            }
        }
    }

    #[inline(always)]
    fn load(&self, block: usize, into: &mut Block) {
        let at = block * LEN..(block + 1) * LEN;
        match self {
            Self::F32(all) => into.copy_from_slice(&all[at]),
            Self::Bf16(all) => {
                for (wide, narrow) in into.iter_mut().zip(&all[at]) {
                    *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
                }
            }
            Self::Codes(coding, codes, scales) => decode(*coding, &codes[at], scales[block], into),
        }
    }

    #[inline(always)]
    fn store(&mut self, block: usize, from: &Block, draws: &[u32; LEN], noise: Noise) {
        let at = block * LEN..(block + 1) * LEN;
        match self {
            Self::F32(all) => all[at].copy_from_slice(from),
            Self::Bf16(all) => {
                for ((narrow, wide), &draw) in all[at].iter_mut().zip(from).zip(draws) {
                    let sum = wide.to_bits().wrapping_add(noise.of_draw_for_bf16(draw));
                    *narrow = bf16::from_bits((sum >> 16) as u16);
                }
            }
            Self::Codes(coding, codes, scales) => {
                scales[block] = encode(*coding, from, draws, noise, &mut codes[at]);
            }
        }
    }
}

#[inline(always)]
fn decode(coding: Coding, codes: &[u8], scale: f32, into: &mut Block) {
    let unit = scale / coding.top_squared() as f32;
    for (number, &code) in into.iter_mut().zip(codes) {
        *number = match coding {
            Coding::First => {
                let code = f32::from(code as i8);
                code * code.abs() * unit
            }
            Coding::Second => {
                let code = f32::from(code);
                let root = code * code * unit;
                root * root
            }
        };
    }
}

/// Encodes a block and returns its scale.
#[inline(always)]
fn encode(coding: Coding, numbers: &Block, draws: &[u32; LEN], noise: Noise, codes: &mut [u8]) -> f32 {
    let top_squared = coding.top_squared() as f32;
    let mut squares = [0.0; LEN];
    match coding {
        Coding::First => squares.iter_mut().zip(numbers).for_each(|(square, x)| *square = x.abs()),
        Coding::Second => squares.iter_mut().zip(numbers).for_each(|(square, x)| *square = x.sqrt()),
    }
    let scale = largest(&squares);
    let divisor = if scale < MIN_SCALE as f32 { MIN_SCALE as f32 } else { scale };
    let mut rounded = [0.0; LEN];
    for ((rounded, square), &draw) in rounded.iter_mut().zip(&mut squares).zip(draws) {
        *square = *square / divisor * top_squared;
        let lower = square.sqrt().floor();
        let chance = (*square - lower * lower) / (lower * 2.0 + 1.0);
        // Converts through i32, which more processors support.
        let goes_up = chance * 256.0 - 0.5 > noise.byte_of(draw) as i32 as f32;
        *rounded = if goes_up { lower + 1.0 } else { lower };
    }
    match coding {
        Coding::First => {
            for ((code, rounded), number) in codes.iter_mut().zip(&rounded).zip(numbers) {
                let magnitude = small_integer(*rounded);
                *code = if number.is_sign_negative() { magnitude.wrapping_neg() } else { magnitude };
            }
        }
        Coding::Second => {
            for ((code, rounded), square) in codes.iter_mut().zip(&rounded).zip(&squares) {
                let least = if *square > 0.0 { 1.0 } else { 0.0 };
                *code = small_integer(if *rounded < least { least } else { *rounded });
            }
        }
    }
    scale
}

/// Converts an integer in 0..256: after adding 2^23, it is in the low bits of the sum.
#[inline(always)]
fn small_integer(x: f32) -> u8 {
    (x + 8_388_608.0).to_bits() as u8
}

/// The maximum of a block. Propagates NaN, which `f32::max` would drop.
#[inline(always)]
fn largest(numbers: &Block) -> f32 {
    let larger = |largest: f32, x: f32| if x <= largest { largest } else { x };
    let mut lanes = [0f32; LANES];
    for part in numbers.chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane = larger(*lane, *x);
        }
    }
    lanes.into_iter().fold(0.0, larger)
}

/// The scalars of a step in f32.
#[derive(Clone, Copy)]
struct Factors {
    beta1: f32,
    beta2: f32,
    divisor: f32,
    /// The fraction of a weight that remains after decay.
    kept: f32,
    /// The learning rate divided by the first moment's bias correction.
    rate: f32,
    /// The square root of the second moment's bias correction.
    root: f32,
    eps: f32,
}

impl Factors {
    fn new(step: &Step, lr: f64, decays: bool) -> Self {
        let AdamWOptions { betas: [beta1, beta2], weight_decay, eps } = step.hyper(decays);
        let correction = |beta: f64| 1.0 - beta.powf(step.count as f64);
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            divisor: step.divisor.double_value(&[]) as f32,
            kept: (1.0 - lr * weight_decay) as f32,
            rate: (lr / correction(beta1)) as f32,
            root: correction(beta2).sqrt() as f32,
            eps: eps as f32,
        }
    }
}

#[inline(always)]
fn adamw(weights: &mut Block, gradient: &[f32], exp_avg: &mut Block, exp_avg_sq: &mut Block, f: Factors) {
    for (((w, &g), m), v) in weights.iter_mut().zip(gradient).zip(exp_avg).zip(exp_avg_sq) {
        let g = g / f.divisor;
        *m = f.beta1 * *m + (1.0 - f.beta1) * g;
        *v = f.beta2 * *v + (1.0 - f.beta2) * g * g;
        *w = *w * f.kept - f.rate * *m / (v.sqrt() / f.root + f.eps);
    }
}

/// The blocks of one thread.
struct Task<'a> {
    weights: StoredSlice<'a>,
    gradient: &'a [f32],
    exp_avg: StoredSlice<'a>,
    exp_avg_sq: StoredSlice<'a>,
    /// Index of the first element within the parameter.
    first: i64,
}

impl Task<'_> {
    fn split_at(self, blocks: usize) -> (Self, Self) {
        let elements = blocks * LEN;
        let (weights, more_weights) = self.weights.split_at(blocks);
        let (gradient, more_gradient) = self.gradient.split_at(elements);
        let (exp_avg, more_avg) = self.exp_avg.split_at(blocks);
        let (exp_avg_sq, more_sq) = self.exp_avg_sq.split_at(blocks);
        let task = Self { weights, gradient, exp_avg, exp_avg_sq, first: self.first };
        let rest = Self {
            weights: more_weights,
            gradient: more_gradient,
            exp_avg: more_avg,
            exp_avg_sq: more_sq,
            first: self.first + elements as i64,
        };
        (task, rest)
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn run(task: Task, draws: Draws, factors: Factors) {
    let Task { mut weights, gradient, mut exp_avg, mut exp_avg_sq, first } = task;
    let (mut w, mut m, mut v) = ([0.0; LEN], [0.0; LEN], [0.0; LEN]);
    let mut drawn = [0; LEN];
    for (block, gradient) in gradient.chunks_exact(LEN).enumerate() {
        weights.load(block, &mut w);
        exp_avg.load(block, &mut m);
        exp_avg_sq.load(block, &mut v);
        adamw(&mut w, gradient, &mut m, &mut v, factors);
        draws.fill((first as u32).wrapping_add((block * LEN) as u32), &mut drawn);
        weights.store(block, &w, &drawn, Noise::Weight);
        exp_avg.store(block, &m, &drawn, Noise::FirstMoment);
        exp_avg_sq.store(block, &v, &drawn, Noise::SecondMoment);
    }
}

/// Applies one AdamW step to whole blocks, contiguous on the CPU, by their f32 gradient. They are the elements of the
/// parameter of `draws` starting at `first`. `lr` is the learning rate.
///
/// # Panics
/// Panics if weights, gradient and moments share memory.
pub fn step(
    weights: &mut Tensor,
    gradient: &Tensor,
    moments: &mut Moments,
    (draws, first): (Draws, i64),
    lr: f64,
    decays: bool,
    step: &Step,
) {
    let factors = Factors::new(step, lr, decays);
    // SAFETY: nothing else accesses the tensors until the loop ends.
    let memory = unsafe { Slices::new() };
    let gradient = memory.of::<f32>(gradient);
    let [exp_avg, exp_avg_sq] = moments.slices(&memory);
    let mut rest =
        Task { weights: StoredSlice::floats(&memory, weights), gradient, exp_avg, exp_avg_sq, first };
    let mut tasks = Vec::new();
    for share in shares(gradient.len() / LEN, MIN_SHARE) {
        let (task, after) = rest.split_at(share.len());
        tasks.push(task);
        rest = after;
    }
    parallel_each(tasks, |task| run(task, draws, factors));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn rms_ratios(gradient: &[f32], exp_avg_sq: &StoredSlice, f: Factors, into: &mut [f64]) {
    let mut v = [0.0; LEN];
    let (correction, least) = (f.root * f.root, f.eps * f.eps);
    for ((block, gradient), into) in gradient.chunks_exact(LEN).enumerate().zip(into) {
        exp_avg_sq.load(block, &mut v);
        let mut sums = [0f32; LANES];
        for (gradient, v) in gradient.chunks_exact(LANES).zip(v.chunks_exact(LANES)) {
            for ((sum, &g), v) in sums.iter_mut().zip(gradient).zip(v) {
                let square = (g / f.divisor) * (g / f.divisor);
                let expected = (f.beta2 * v + (1.0 - f.beta2) * square) / correction;
                *sum += square / if expected < least { least } else { expected };
            }
        }
        *into = sums.iter().map(|&sum| f64::from(sum)).sum();
    }
}

/// The sum over whole blocks of g^2 / v, as defined by
/// [`UpdateRule::add_rms_ratios`](crate::optimizer::UpdateRule::add_rms_ratios).
pub fn rms_ratio(gradient: &Tensor, moments: &mut Moments, step: &Step) -> f64 {
    let factors = Factors::new(step, 0.0, false);
    // SAFETY: nothing else accesses the tensors until the loop ends.
    let memory = unsafe { Slices::new() };
    let gradient = memory.of::<f32>(gradient);
    let [_, exp_avg_sq] = moments.slices(&memory);
    let mut sums = vec![0.0; gradient.len() / LEN];
    let (mut rest, mut rest_sums, mut tasks) = ((gradient, exp_avg_sq), sums.as_mut_slice(), Vec::new());
    for share in shares(gradient.len() / LEN, MIN_SHARE) {
        let (gradient, more) = rest.0.split_at(share.len() * LEN);
        let (exp_avg_sq, more_sq) = rest.1.split_at(share.len());
        let (into, more_sums) = rest_sums.split_at_mut(share.len());
        tasks.push((gradient, exp_avg_sq, into));
        (rest, rest_sums) = ((more, more_sq), more_sums);
    }
    parallel_each(tasks, |(gradient, exp_avg_sq, into)| rms_ratios(gradient, &exp_avg_sq, factors, into));
    sums.iter().sum()
}

/// Rounds f32 moments to their storage dtype: the last part of [`step`], for tests.
#[cfg(test)]
pub fn store(moments: &mut Moments, wide: &[Tensor; 2], (draws, first): (Draws, i64)) {
    let noises = [Noise::FirstMoment, Noise::SecondMoment];
    // SAFETY: nothing else accesses the tensors until the loop ends.
    let memory = unsafe { Slices::new() };
    for ((mut kept, wide), noise) in moments.slices::<2>(&memory).into_iter().zip(wide).zip(noises) {
        for (block, numbers) in memory.of::<f32>(wide).chunks_exact(LEN).enumerate() {
            let (mut from, mut drawn) = ([0.0; LEN], [0; LEN]);
            from.copy_from_slice(numbers);
            draws.fill((first as u32) + (block * LEN) as u32, &mut drawn);
            kept.store(block, &from, &drawn, noise);
        }
    }
}

/// Widens stored moments to f32: the first part of [`step`], for tests.
#[cfg(test)]
pub fn load(moments: &mut Moments) -> [Vec<f32>; 2] {
    // SAFETY: nothing else accesses the tensors until the loop ends.
    let memory = unsafe { Slices::new() };
    moments.slices(&memory).map(|kept| {
        let blocks = match &kept {
            StoredSlice::F32(all) => all.len() / LEN,
            StoredSlice::Bf16(all) => all.len() / LEN,
            StoredSlice::Codes(_, _, scales) => scales.len(),
        };
        let mut wide = vec![0.0; blocks * LEN];
        for (block, into) in wide.chunks_exact_mut(LEN).enumerate() {
            let mut numbers = [0.0; LEN];
            kept.load(block, &mut numbers);
            into.copy_from_slice(&numbers);
        }
        wide
    })
}
