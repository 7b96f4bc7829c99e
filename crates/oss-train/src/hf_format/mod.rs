//! Reading and writing Hugging Face directories.
//!
//! [`HfDirectory`] reads `config.json` and safetensors files in three layouts: as saved by transformers (bf16, f16 or
//! f32, in a single file or in shards with an index), as released (expert matrices in MXFP4), and OpenAI's own
//! (`original/` in the release). In every layout, weights are loaded one at a time, under their Hugging Face names and
//! shapes.
//!
//! [`export()`] writes a directory that transformers can load.

mod assemble;
mod config;
mod directory;
mod export;
mod layout;
mod mxfp4;
mod shards;

pub use directory::{HfDirectory, read_config};
pub use export::{ExportOptions, TokenizerFiles, export};

use directory::CONFIG;

#[cfg(test)]
mod tests;
