//! Our checkpoints: what training needs to go on bit for bit, on any number of ranks.
//!
//! ```text
//! checkpoints/
//!   step-00000500/
//!     rank-00000-of-00002.safetensors   the ranges that rank 0 held
//!     rank-00001-of-00002.safetensors
//!     manifest.json                     state, table of tensors, digests; written last
//!   step-00000600.tmp-1f0c23a9b4d5e677/ being written, or left by a process that died
//! ```
//!
//! A checkpoint is written under a temporary name, synced, and renamed: a directory called `step-N` is complete. There
//! is no pointer to the latest; it is found by looking. Every byte is covered by a digest: the manifest's covers itself
//! and the manifest's table covers the files, so that damage is found, named, and the checkpoint before is used.
//!
//! Whoever has a checkpoint open holds a shared lock on its directory, which keeps it from being pruned.
//!
//! Tensors are keyed by name and range of their flattened elements. A name's ranges, over all ranks, cover it exactly
//! once, and any range can be read back whatever the split was.

mod background;
mod entry;
mod error;
mod find;
mod load;
mod manifest;
mod rank_file;
mod retention;
mod save;

pub use background::Background;
pub use entry::{Entry, OPTIMIZER_PREFIX};
pub use error::Error;
pub use find::{candidates, list, newest_step, newest_whole};
pub use load::Checkpoint;
pub use manifest::RankFile;
pub use rank_file::{bytes_needed, write_rank};
pub use retention::{prune, remove};
pub use save::Writer;

use error::Result;
use find::{directory_name, step_of};

#[cfg(test)]
mod tests;
