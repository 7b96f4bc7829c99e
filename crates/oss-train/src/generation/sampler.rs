//! Sampling: chooses the next token from logits.

use anyhow::{Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use oss_config::error::UserError;

/// Sampling parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoding {
    /// Maximum number of tokens to generate.
    pub max_new_tokens: u64,
    /// Divides the logits; 0 selects greedy decoding.
    pub temperature: f64,
    /// Sample only from the k most likely tokens.
    pub top_k: Option<u64>,
    /// Sample only from the most likely tokens whose cumulative probability reaches this value (arXiv:1904.09751).
    pub top_p: Option<f64>,
    /// Random seed.
    pub seed: u64,
    /// Tokens that end a sequence.
    pub end_tokens: Vec<i64>,
}

/// The random stream of one sequence.
#[derive(Debug)]
pub struct Sampler {
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Stream `stream` of the seed in `decoding`.
    pub fn new(decoding: &Decoding, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(decoding.seed);
        rng.set_stream(stream);
        Self { rng }
    }

    /// Chooses the token that follows `logits [V]`. Each call consumes one random number; greedy calls consume none.
    ///
    /// # Errors
    /// Fails if the logits are not finite.
    pub fn choose(&mut self, logits: &[f32], decoding: &Decoding) -> Result<i64> {
        let max = oss_kernels::max(logits);
        ensure!(
            max.is_finite(),
            UserError::failed("the logits are not finite")
                .hint("sample from an earlier checkpoint (--step N)")
        );
        if decoding.temperature == 0.0 {
            return Ok(logits.iter().position(|&logit| logit == max).unwrap_or_default() as i64);
        }
        let mut likelihoods = vec![0.0; logits.len()];
        let temperature = (decoding.temperature as f32).max(f32::MIN_POSITIVE);
        oss_kernels::likelihoods(logits, max, temperature, &mut likelihoods);
        // A 53-bit number in [0, 1).
        let drawn = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let token = match (decoding.top_k, decoding.top_p) {
            (None, None) => draw(&likelihoods, drawn),
            (top_k, top_p) => {
                let tokens = likeliest(&likelihoods, top_k, top_p);
                let kept: Vec<f32> = tokens.iter().map(|&token| likelihoods[token]).collect();
                tokens[draw(&kept, drawn)]
            }
        };
        Ok(token as i64)
    }
}

/// Number of likelihoods summed per block.
const BLOCK: usize = 1024;

fn sum(likelihoods: &[f32]) -> f64 {
    likelihoods.iter().map(|&likelihood| f64::from(likelihood)).sum()
}

/// The index at which the cumulative sum of `likelihoods` exceeds the fraction `drawn` of their total.
fn draw(likelihoods: &[f32], drawn: f64) -> usize {
    let blocks: Vec<f64> = likelihoods.chunks(BLOCK).map(sum).collect();
    let mut left = drawn * blocks.iter().sum::<f64>();
    for (block, total) in blocks.iter().enumerate() {
        if left < *total {
            let start = block * BLOCK;
            for (place, likelihood) in likelihoods[start..].iter().enumerate() {
                left -= f64::from(*likelihood);
                if left < 0.0 {
                    return start + place;
                }
            }
        }
        left -= total;
    }
    // Rounding can leave a small remainder after the last one.
    likelihoods.len() - 1
}

/// The `top_k` most likely tokens, reduced to the most likely ones that make up the fraction `top_p` of their total, in
/// descending order. Ties go to the lower token ID, so the order does not depend on the sorting algorithm.
fn likeliest(likelihoods: &[f32], top_k: Option<u64>, top_p: Option<f64>) -> Vec<usize> {
    let count = top_k.map_or(0, |k| (k as usize).clamp(1, likelihoods.len()));
    let needed = if top_k.is_none() { top_p.unwrap_or(1.0) * sum(likelihoods) } else { 0.0 };
    // Few tokens are likely, so few need sorting: lower a threshold until enough tokens exceed it.
    let mut least: f32 = 0.5;
    let mut tokens: Vec<usize> = loop {
        let likely = (0..likelihoods.len()).filter(|&token| likelihoods[token] >= least);
        let tokens: Vec<usize> = likely.collect();
        let total: f64 = tokens.iter().map(|&token| f64::from(likelihoods[token])).sum();
        if tokens.len() == likelihoods.len() || (tokens.len() >= count && total >= needed) {
            break tokens;
        }
        least *= least;
    };
    let by_likelihood = |&a: &usize, &b: &usize| likelihoods[b].total_cmp(&likelihoods[a]).then(a.cmp(&b));
    if (1..tokens.len()).contains(&count) {
        tokens.select_nth_unstable_by(count - 1, by_likelihood);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(by_likelihood);
    if let Some(top_p) = top_p {
        let kept = tokens.iter().map(|&token| f64::from(likelihoods[token]));
        let needed = if top_k.is_none() { needed } else { top_p * kept.clone().sum::<f64>() };
        let mut sum = 0.0;
        let nucleus = kept.take_while(|likelihood| {
            let before = sum;
            sum += likelihood;
            before < needed
        });
        let count = nucleus.count().max(1);
        tokens.truncate(count);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    fn counts(decoding: &Decoding, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut chooser = Sampler::new(decoding, 0);
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[chooser.choose(logits, decoding).unwrap() as usize] += 1;
        }
        counts
    }

    fn decoding(temperature: f64) -> Decoding {
        Decoding { max_new_tokens: 1, temperature, top_k: None, top_p: None, seed: 1, end_tokens: vec![] }
    }

    /// The logarithms of 0.1, 0.5 and 0.4.
    fn logits() -> Vec<f32> {
        [0.1f32, 0.5, 0.4].map(f32::ln).to_vec()
    }

    #[test]
    fn zero_temperature_is_greedy() {
        assert_eq!(counts(&decoding(0.0), &logits(), 10), [0, 10, 0]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let seen = counts(&decoding(1.0), &logits(), 20_000);
        for (count, p) in seen.iter().zip([0.1, 0.5, 0.4]) {
            assert!((*count as f64 / 20_000.0 - p).abs() < 0.015, "{seen:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        assert_eq!(counts(&Decoding { top_k: Some(2), ..decoding(1.0) }, &logits(), 500)[0], 0);
        assert_eq!(counts(&Decoding { top_k: Some(1), ..decoding(1.0) }, &logits(), 500), [0, 500, 0]);
        assert_eq!(counts(&Decoding { top_p: Some(0.5), ..decoding(1.0) }, &logits(), 500), [0, 500, 0]);
        let wider = counts(&Decoding { top_p: Some(0.51), ..decoding(1.0) }, &logits(), 500);
        assert!(wider[0] == 0 && wider[2] > 0, "{wider:?}");
    }

    /// Reference implementation by a full sort.
    fn likeliest_by_sorting(likelihoods: &[f32], top_k: Option<u64>, top_p: Option<f64>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..likelihoods.len()).collect();
        order.sort_by(|&a, &b| likelihoods[b].total_cmp(&likelihoods[a]).then(a.cmp(&b)));
        order.truncate(top_k.map_or(order.len(), |k| k as usize));
        let share = |tokens: &[usize]| tokens.iter().map(|&token| f64::from(likelihoods[token])).sum::<f64>();
        let total = share(&order);
        let is_enough = |count: &usize| share(&order[..*count]) >= top_p.unwrap_or(1.0) * total;
        let count = (1..order.len()).find(is_enough).unwrap_or(order.len());
        order.truncate(count);
        order
    }

    #[test]
    fn the_likeliest_tokens_match_a_full_sort() {
        // Steep, flat, and with many ties. Multiples of 1/64 keep sums exact in any order.
        let steep: Vec<f32> =
            (0..500).map(|i| 64.0 / (1 + i * 37 % 500 / 8) as f32).map(f32::floor).collect();
        let flat: Vec<f32> = (0..500).map(|i| (40 + i * 37 % 25) as f32).collect();
        for likelihoods in [steep, flat].map(|numbers| numbers.iter().map(|x| x / 64.0).collect::<Vec<f32>>())
        {
            for top_k in [None, Some(1), Some(7), Some(499), Some(500)] {
                for top_p in [None, Some(0.01), Some(0.5), Some(0.75), Some(1.0)] {
                    if (top_k, top_p) != (None, None) {
                        let expected = likeliest_by_sorting(&likelihoods, top_k, top_p);
                        assert_eq!(likeliest(&likelihoods, top_k, top_p), expected, "{top_k:?} {top_p:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn draw_inverts_the_cumulative_distribution() {
        let likelihoods: Vec<f32> = (0..3000).map(|i| (i % 3) as f32).collect();
        let total = sum(&likelihoods);
        let mut before = 0.0;
        for (place, likelihood) in likelihoods.iter().enumerate().filter(|(_, likelihood)| **likelihood > 0.0)
        {
            assert_eq!(draw(&likelihoods, (before + 0.5) / total), place);
            before += f64::from(*likelihood);
        }
    }

    #[test]
    fn nan_logits_are_rejected_with_a_hint() {
        for temperature in [0.0, 1.0] {
            let error =
                Sampler::new(&decoding(temperature), 0).choose(&[0.0, f32::NAN], &decoding(temperature));
            assert!(ErrorReport::of(error.unwrap_err()).hints[0].contains("earlier checkpoint"));
        }
    }
}
