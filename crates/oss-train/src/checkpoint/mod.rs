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
mod find;
mod load;
mod manifest;
mod rank_file;
mod retention;
mod save;

use std::{io, ops::Range, path::PathBuf};

use indicatif::HumanBytes;
use tch::Tensor;

pub use background::Background;
pub use find::{candidates, list, newest_step, newest_whole};
pub use load::Checkpoint;
pub use manifest::RankFile;
pub use rank_file::{bytes_needed, write_rank};
pub use retention::{prune, remove};
pub use save::Writer;

use crate::tensor_file::{TensorFileError, io_error};
use oss_config::error::{UserError, user_errors};

/// What every name of optimizer state starts with; all other names are weights.
pub const OPTIMIZER_PREFIX: &str = "optimizer.";

/// One rank's piece of a named tensor.
#[derive(Debug)]
pub struct Entry {
    /// Hugging Face name of a weight, or `optimizer.<what>/<name>`.
    pub name: String,
    /// Shape of the whole tensor.
    pub shape: Vec<i64>,
    /// Flattened elements of the whole tensor that `tensor` holds; a rank that holds none of it may leave the entry
    /// out.
    pub range: Range<i64>,
    /// The piece: `range.len()` elements in any shape, on any device.
    pub tensor: Tensor,
}

impl Entry {
    /// An entry that holds all of `tensor`.
    pub fn whole(name: impl Into<String>, tensor: &Tensor) -> Self {
        let shape = tensor.size();
        Self { name: name.into(), range: 0..tensor.numel() as i64, shape, tensor: tensor.shallow_clone() }
    }
}

/// What can go wrong with checkpoints.
#[derive(Debug)]
pub enum Error {
    /// Not enough room, found before anything was written.
    NoRoom {
        /// Step of the checkpoint.
        step: u64,
        /// The checkpoints' directory.
        dir: PathBuf,
        /// Bytes that the checkpoint takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The disk filled up while writing.
    Full {
        /// Step of the checkpoint.
        step: u64,
        /// The checkpoints' directory.
        dir: PathBuf,
        /// The call that failed.
        source: TensorFileError,
    },
    /// Some rank wrote no file, or the leader does not see it.
    Ranks {
        /// Step of the checkpoint.
        step: u64,
        /// The checkpoints' directory.
        dir: PathBuf,
        /// One line a rank that failed.
        problems: String,
    },
    /// Nobody waited for the file any more.
    Abandoned {
        /// Step of the checkpoint.
        step: u64,
    },
    /// A file could not be written or read, or is damaged.
    File(TensorFileError),
    /// A checkpoint is not what was written.
    Damaged {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What does not hold.
        what: String,
    },
    /// There are checkpoints, and none can be used.
    AllDamaged {
        /// The checkpoints' directory.
        dir: PathBuf,
        /// One line a checkpoint.
        problems: String,
    },
    /// Written by a newer program.
    Newer {
        /// The checkpoint's directory.
        path: PathBuf,
        /// Its format.
        format: u64,
        /// The newest format read here.
        supported: u64,
    },
    /// The pieces handed over for saving do not make whole tensors.
    Pieces(String),
    /// A name or range that the checkpoint does not hold.
    NotHeld {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What was asked for.
        what: String,
    },
}

impl From<Error> for UserError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoRoom { step, dir, needed, free } => Self::failed(format!(
                "no room for the checkpoint of step {step}: it needs {}, and {} are free in {}",
                HumanBytes(needed),
                HumanBytes(free),
                dir.display()
            ))
            .hint("free some space, or lower checkpoint.keep_last"),
            Error::Full { step, dir, source } => Self::failed(format!(
                "the disk filled up while writing the checkpoint of step {step}; the \
                 unfinished one was removed and the earlier ones in {} are whole",
                dir.display()
            ))
            .hint("free some space and resume")
            .because(source),
            Error::Ranks { step, dir, problems } => Self::failed(format!(
                "the checkpoint of step {step} was given up, and the earlier ones in {} are \
                 whole:\n  {problems}",
                dir.display()
            ))
            .hint("mend that and resume"),
            Error::Abandoned { step } => {
                Self::failed(format!("writing the checkpoint of step {step} was given up half-way"))
                    .hint("resume from the one before")
            }
            Error::File(error) => Self::failed(error),
            Error::Damaged { path, what } => {
                Self::failed(format!("checkpoint {} is damaged: {what}", path.display()))
                    .hint("delete that directory to use the checkpoint before it")
            }
            Error::AllDamaged { dir, problems } => {
                Self::failed(format!("no checkpoint in {} can be used:\n{problems}", dir.display()))
                    .hint("restore one from a backup, or start again with --new")
            }
            Error::Newer { path, format, supported } => Self::failed(format!(
                "checkpoint {} has format {format}, and this program reads format {supported}",
                path.display()
            ))
            .hint("use a newer oss-run"),
            Error::Pieces(what) => Self::failed(format!("the checkpoint's pieces do not fit: {what}")),
            Error::NotHeld { path, what } => {
                Self::failed(format!("checkpoint {} does not hold {what}", path.display()))
                    .hint("the run's experiment.toml says what it was trained on")
            }
        }
    }
}

user_errors!(Error);

impl From<TensorFileError> for Error {
    fn from(error: TensorFileError) -> Self {
        Self::File(error)
    }
}

impl Error {
    fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let with_path = io_error(action, path);
        move |source| Self::File(with_path(source))
    }
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// The directory of a step's checkpoint inside `checkpoints/`.
fn directory_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step in a directory's name; none for other names.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (directory_name(step) == name).then_some(step)
}

#[cfg(test)]
mod tests;
