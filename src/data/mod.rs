//! Text to tokens to batches.

mod batches;
mod document;
mod permutation;
pub mod sources;
pub mod stories;
mod token_file;
mod tokenizer;

pub use batches::Batches;
pub use document::Document;
pub use token_file::TokenFile;
pub use tokenizer::{SpecialIds, Tokenizer, TokenizerError, TokenizerFacts};
