//! The built-in corpus: short children's stories that the program writes itself.
//!
//! A story is a pure function of (seed, number): a plot is chosen and cast, and its beats are written out from
//! templates. What is introduced is what is lost, mended or shared later, names and pronouns stay, and every sentence
//! is whole, so that a small model has something to learn beyond spelling.
//!
//! The corpus has [`STORIES`] stories of 80 to 200 words, about 13 MB.

mod cast;
mod grammar;
mod plots;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use grammar::Random;

/// Version of the generator: raised whenever any story of any seed changes.
pub const VERSION: u32 = 1;
/// Number of stories of the training corpus.
pub const STORIES: u64 = 15_000;
/// Seed of the training corpus, whatever the run's seed: runs with different seeds share prepared data.
pub const TRAINING_SEED: u64 = 1;
/// Seed of the corpus used for validation alone.
pub const VALIDATION_SEED: u64 = 2;
/// Number of stories of the corpus used for validation alone.
pub const VALIDATION_STORIES: u64 = 1_000;

const MEAN_STORY_BYTES: u64 = 850;

/// A corpus of generated stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// Corpora of different seeds have different stories.
    pub seed: u64,
    /// How many stories there are.
    pub stories: u64,
}

impl Corpus {
    /// The corpus of `seed`, in its usual size.
    pub fn new(seed: u64) -> Self {
        Self { seed, stories: STORIES }
    }

    /// The story of a number; any number gives one, in any order.
    pub fn story(&self, number: u64) -> String {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        plots::tell(&mut Random::new(rng))
    }

    /// About how many bytes the stories have in all.
    pub fn approximate_bytes(&self) -> u64 {
        self.stories * MEAN_STORY_BYTES
    }
}

#[cfg(test)]
mod tests;
