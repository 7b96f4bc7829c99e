//! The built-in corpus.
pub const VERSION: u32 = 1;
pub const TRAINING_SEED: u64 = 1;
pub const VALIDATION_SEED: u64 = 2;
pub const VALIDATION_STORIES: u64 = 1000;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corpus {
    pub seed: u64,
    pub stories: u64,
}
impl Corpus {
    pub fn new(seed: u64) -> Self {
        Self { seed, stories: 20_000 }
    }
    pub fn story(&self, _i: u64) -> String {
        String::new()
    }
    pub fn approximate_bytes(&self) -> u64 {
        self.stories * 600
    }
}
