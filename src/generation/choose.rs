//! From logits to the next token.

use anyhow::{Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use tch::{Kind, Tensor};

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoding {
    /// Tokens to add at most.
    pub max_new_tokens: u64,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draw among the k likeliest only.
    pub top_k: Option<u64>,
    /// Draw among the likeliest that make up this share (arXiv:1904.09751).
    pub top_p: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
    /// Tokens that end a sequence.
    pub end_tokens: Vec<i64>,
}

/// One sequence's random stream.
#[derive(Debug)]
pub struct Chooser {
    rng: ChaCha8Rng,
}

impl Chooser {
    /// Stream `stream` of the decoding's seed.
    pub fn new(decoding: &Decoding, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(decoding.seed);
        rng.set_stream(stream);
        Self { rng }
    }

    /// The next token after `logits [V]`, on the CPU. Each call draws one number, greedy ones none.
    pub fn choose(&mut self, logits: &Tensor, decoding: &Decoding) -> Result<i64> {
        if decoding.temperature == 0.0 {
            return Ok(logits.argmax(-1, false).int64_value(&[]));
        }
        let scaled = logits.to_kind(Kind::Double) / decoding.temperature;
        let probabilities = Vec::<f64>::try_from(scaled.softmax(-1, None::<Kind>))?;
        ensure!(
            probabilities.iter().all(|p| p.is_finite()),
            "the logits are not finite; sample from an earlier checkpoint (--step N)"
        );
        // Ties fall to the lower token, so that the order never depends on the sort.
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        let by_probability =
            |&a: &usize, &b: &usize| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b));
        let kept = decoding.top_k.map_or(order.len(), |k| (k as usize).clamp(1, order.len()));
        if kept < order.len() {
            order.select_nth_unstable_by(kept - 1, by_probability);
            order.truncate(kept);
        }
        if decoding.top_p.is_some() || kept < probabilities.len() {
            order.sort_unstable_by(by_probability);
        }
        let mut total: f64 = order.iter().map(|&token| probabilities[token]).sum();
        if let Some(top_p) = decoding.top_p {
            let mut sum = 0.0;
            let nucleus = order.iter().take_while(|&&token| {
                let before = sum;
                sum += probabilities[token];
                before < top_p * total
            });
            let count = nucleus.count().max(1);
            order.truncate(count);
            total = order.iter().map(|&token| probabilities[token]).sum();
        }
        let mut left = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        for &token in &order {
            left -= probabilities[token];
            if left < 0.0 {
                return Ok(token as i64);
            }
        }
        // Rounding can leave a crumb after the last token.
        Ok(order[order.len() - 1] as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(decoding: &Decoding, logits: &[f64], draws: usize) -> Vec<usize> {
        let logits = Tensor::from_slice(logits);
        let mut chooser = Chooser::new(decoding, 0);
        let mut counts = vec![0; logits.numel()];
        for _ in 0..draws {
            counts[chooser.choose(&logits, decoding).unwrap() as usize] += 1;
        }
        counts
    }

    fn decoding(temperature: f64) -> Decoding {
        Decoding { max_new_tokens: 1, temperature, top_k: None, top_p: None, seed: 1, end_tokens: vec![] }
    }

    /// Logarithms of 0.1, 0.5, 0.4.
    fn logits() -> Vec<f64> {
        [0.1f64, 0.5, 0.4].map(f64::ln).to_vec()
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
}
