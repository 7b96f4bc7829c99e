//! From text to tokens to batches.
#![deny(unsafe_code)]

mod batches;
mod caught;
mod document;
mod document_digests;
mod index;
mod mapped;
mod permutation;
mod prepare;
pub mod sources;
mod stories;
mod token_file;
mod tokenizer;

pub use batches::Batches;
pub use document::Document;
pub use index::{Index, Part, Prepared, PreparedError, Skipped, TokenizerRecord};
pub use prepare::{PrepareOptions, PrepareProgress, prepare_source, recover};
pub use token_file::TokenFile;
pub use tokenizer::{
    Difference, EndOfText, EndOfTextReason, SpecialIds, Tokenizer, TokenizerError, TokenizerInfo,
};
