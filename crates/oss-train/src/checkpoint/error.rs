//! Errors of checkpoints.

use std::io;
use std::path::PathBuf;

use indicatif::HumanBytes;

use crate::tensor_file::{TensorFileError, io_error};
use oss_config::error::{UserError, user_errors};

/// An error while writing, finding or reading a checkpoint.
#[derive(Debug)]
pub enum Error {
    /// Not enough disk space, noticed before anything was written.
    NoRoom {
        /// Step of the checkpoint.
        step: u64,
        /// The checkpoints' directory.
        dir: PathBuf,
        /// Bytes that the checkpoint needs.
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
    /// A rank did not write its file, or the leader cannot see it.
    Ranks {
        /// Step of the checkpoint.
        step: u64,
        /// The checkpoints' directory.
        dir: PathBuf,
        /// One line per failed rank.
        problems: String,
    },
    /// The write was abandoned: its [`Background`](super::Background) was dropped.
    Abandoned {
        /// Step of the checkpoint.
        step: u64,
    },
    /// A file could not be written or read, or is damaged.
    File(TensorFileError),
    /// A checkpoint is not as it was written.
    Damaged {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There are checkpoints, but none of them is usable.
    AllDamaged {
        /// The checkpoints' directory.
        dir: PathBuf,
        /// One line per checkpoint.
        problems: String,
    },
    /// A checkpoint was written by a newer version of the program.
    Newer {
        /// The checkpoint's directory.
        path: PathBuf,
        /// Its format.
        format: u64,
        /// The newest supported format.
        supported: u64,
    },
    /// The pieces to be saved do not make up whole tensors.
    Pieces(String),
    /// The checkpoint does not contain a requested name or range.
    NotHeld {
        /// The checkpoint's directory.
        path: PathBuf,
        /// What was requested.
        what: String,
    },
}

impl From<Error> for UserError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoRoom { step, dir, needed, free } => Self::failed(format!(
                "not enough disk space in {} for the checkpoint of step {step}: it needs {}, but only {} are free",
                dir.display(),
                HumanBytes(needed),
                HumanBytes(free)
            ))
            .hint("free some space, or lower checkpoint.keep_last"),
            Error::Full { step, dir, source } => Self::failed(format!(
                "the disk is full: the checkpoint of step {step} could not be finished and was removed; \
                 earlier ones in {} are intact",
                dir.display()
            ))
            .hint("free some space and resume")
            .because(source),
            Error::Ranks { step, dir, problems } => Self::failed(format!(
                "the checkpoint of step {step} was abandoned; earlier ones in {} are intact:\n  {problems}",
                dir.display()
            ))
            .hint("fix that and resume"),
            Error::Abandoned { step } => {
                Self::failed(format!("the checkpoint of step {step} was abandoned before it was finished"))
                    .hint("resume from the previous one")
            }
            Error::File(error) => Self::failed(error),
            Error::Damaged { path, what } => {
                Self::failed(format!("checkpoint {} is damaged: {what}", path.display()))
                    .hint("delete that directory to use the previous checkpoint")
            }
            Error::AllDamaged { dir, problems } => {
                Self::failed(format!("no usable checkpoint in {}:\n{problems}", dir.display()))
                    .hint("restore one from a backup, or start over with --new")
            }
            Error::Newer { path, format, supported } => Self::failed(format!(
                "checkpoint {} has format {format}, but this version supports only formats up to {supported}",
                path.display()
            ))
            .hint("use a newer oss-run"),
            Error::Pieces(what) => Self::failed(format!("invalid pieces of a checkpoint: {what}")),
            Error::NotHeld { path, what } => {
                Self::failed(format!("checkpoint {} does not contain {what}", path.display()))
                    .hint("see the run's experiment.toml for the model it trained")
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
    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let with_path = io_error(action, path);
        move |source| Self::File(with_path(source))
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
