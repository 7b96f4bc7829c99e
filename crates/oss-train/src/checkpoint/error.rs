//! What can go wrong with checkpoints.

use std::io;
use std::path::PathBuf;

use indicatif::HumanBytes;

use crate::tensor_file::{TensorFileError, io_error};
use oss_config::error::{UserError, user_errors};

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
    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let with_path = io_error(action, path);
        move |source| Self::File(with_path(source))
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
