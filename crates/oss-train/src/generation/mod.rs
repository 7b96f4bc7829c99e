//! Decoding with a key/value cache: batched and seeded, with a separate random stream per sequence.

mod cache;
mod generate;
mod sample;
mod sampler;

pub use generate::{Prompt, generate};
pub use sample::{SampledText, sample};
pub use sampler::Decoding;
