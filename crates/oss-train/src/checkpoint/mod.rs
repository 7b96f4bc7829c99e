//! Checkpoints: everything that training needs to resume bit-for-bit, on any number of ranks.
//!
//! ```text
//! checkpoints/
//!   step-00000500/
//!     rank-00000-of-00002.safetensors   the ranges that rank 0 holds
//!     rank-00001-of-00002.safetensors
//!     manifest.json                     training state, table of tensors, digests; written last
//!   step-00000600.tmp-1f0c23a9b4d5e677/ being written, or left by a killed process
//! ```
//!
//! A checkpoint is written under a temporary name, synced, and renamed, so a directory named `step-N` is complete.
//! There is no pointer to the latest checkpoint; it is found by scanning. Digests cover every byte: the manifest has
//! its own, and its table has those of the files. Damage is detected and reported, and the previous checkpoint is used
//! instead.
//!
//! A process that has a checkpoint open holds a shared lock on its directory, so that it is not pruned.
//!
//! Tensors are stored by name and range of their flattened elements. The ranges on all ranks together cover a tensor
//! exactly once, and any range can be read back, no matter how the tensor was split.

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
