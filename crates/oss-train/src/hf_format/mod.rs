//! Hugging Face directories in and out.
//!
//! Read: `config.json` beside safetensors files, in three layouts: as transformers saves it (bf16, f16 or f32, one file
//! or shards with an index), as released (expert matrices in MXFP4), and OpenAI's own (`original/` in the release).
//! Whatever the layout, weights come out under their Hugging Face names and shapes, one at a time.
//!
//! Written: what transformers loads, see [`export`].

mod assemble;
mod config;
mod directory;
mod export;
mod layout;
mod mxfp4;
mod shards;

pub use directory::HfDirectory;
pub use export::{ExportOptions, TokenizerFiles, export};

use directory::CONFIG;

#[cfg(test)]
mod tests;
