//! Reductions over logits for sampling a token.

use multiversion::multiversion;

use super::exp::exp;
use super::partition::LANES;

/// The largest of `numbers`, or NaN if one of them is NaN.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn max(numbers: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut is_nan = [false; LANES];
    for block in numbers.chunks(LANES) {
        for ((largest, is_nan), &x) in largest.iter_mut().zip(&mut is_nan).zip(block) {
            *largest = if x > *largest { x } else { *largest };
            *is_nan |= x.is_nan();
        }
    }
    match is_nan.contains(&true) {
        true => f32::NAN,
        false => largest.into_iter().fold(f32::NEG_INFINITY, f32::max),
    }
}

/// Probability of each token at a temperature, relative to the most likely token, whose logit is `max`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub fn likelihoods(logits: &[f32], max: f32, temperature: f32, likelihoods: &mut [f32]) {
    for (likelihood, logit) in likelihoods.iter_mut().zip(logits) {
        *likelihood = exp((logit - max) / temperature);
    }
}
