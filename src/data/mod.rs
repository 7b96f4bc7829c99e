//! Text to tokens to batches.

mod document;
pub mod sources;
pub mod stories;

pub use document::Document;
