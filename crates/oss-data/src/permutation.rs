//! A keyed permutation of `0..n` that needs no memory: a Feistel network over the next even power of two, repeated
//! until the result is in range (format-preserving encryption by cycle walking, Black and Rogaway, 2002).

/// A permutation of `0..n`.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; Self::ROUNDS],
}

impl Permutation {
    const ROUNDS: usize = 6;

    /// The permutation of `0..n` selected by `seed` and `stream`.
    pub fn new(n: u64, seed: u64, stream: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"oss-run permutation 1");
        hasher.update(&seed.to_le_bytes());
        for word in stream {
            hasher.update(&word.to_le_bytes());
        }
        let mut bytes = [0; 8 * Self::ROUNDS];
        hasher.finalize_xof().fill(&mut bytes);
        let mut keys = [0; Self::ROUNDS];
        for (key, word) in keys.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *key = u64::from_le_bytes(*word);
        }
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// The image of `index`.
    ///
    /// # Panics
    /// If `index` is not below n.
    pub fn apply(&self, index: u64) -> u64 {
        assert!(index < self.n, "{index} is not below {}", self.n);
        let mut at = index;
        loop {
            at = self.encrypt(at);
            if at < self.n {
                return at;
            }
        }
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// splitmix64's finalizer (Steele, Lea and Flood, 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_index_comes_once(n in 1u64..3000, seed: u64, stream: u64) {
            let permutation = Permutation::new(n, seed, &[stream]);
            let mut seen: Vec<u64> = (0..n).map(|index| permutation.apply(index)).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..n));
        }
    }

    #[test]
    fn seed_and_stream_choose_the_order() {
        let order = |seed, stream| {
            (0..50).map(|i| Permutation::new(50, seed, &[stream]).apply(i)).collect::<Vec<_>>()
        };
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(1, 3));
        assert_ne!(order(1, 2), order(2, 2));
    }
}
