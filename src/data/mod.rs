//! Text to tokens to batches.

mod document;
mod tokenizer;

pub use document::Document;
pub use tokenizer::{SpecialIds, Tokenizer, TokenizerError, TokenizerFacts};
