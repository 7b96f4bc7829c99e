//! Where everything of a sweep lies. No other file spells these names.
//!
//! ```text
//! runs/<name>/
//!   <run id>/...          each trial is a run like any other
//!   sweep/
//!     ledger.jsonl        the trials, and what was decided of them, in order
//!     results.jsonl       how each trial stands
//!     trials/<id>.toml    the experiment of each trial, resolved
//!     logs/<id>.log       what the trial's process said
//!     claims/<id>         held while a process works on the trial
//!     tensorboard/        the table of the HParams tab
//!     .lock               held while the ledger is written
//! ```

use std::path::{Path, PathBuf};

use super::RunsDir;

/// The directory of one sweep, beside its trials' runs. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepDir {
    root: PathBuf,
}

impl RunsDir {
    /// The sweep whose trials are the runs of this name.
    pub fn sweep(&self, name: &str) -> SweepDir {
        SweepDir { root: self.root().join(name).join("sweep") }
    }
}

impl SweepDir {
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The trials, and what was decided of them.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.jsonl")
    }

    /// The file that is locked while the ledger is written.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// How each trial stands, one line a trial.
    pub fn results(&self) -> PathBuf {
        self.root.join("results.jsonl")
    }

    /// The folder of the trials' experiments.
    pub fn trials(&self) -> PathBuf {
        self.root.join("trials")
    }

    /// The experiment of one trial.
    pub fn trial(&self, id: &str) -> PathBuf {
        self.trials().join(format!("{id}.toml"))
    }

    /// The folder of the trials' messages.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What the processes of one trial said.
    pub fn log(&self, id: &str) -> PathBuf {
        self.logs().join(format!("{id}.log"))
    }

    /// The folder of the claims.
    pub fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    /// The file that is locked while somebody works on a trial.
    pub fn claim(&self, id: &str) -> PathBuf {
        self.claims().join(id)
    }

    /// TensorBoard's table of the trials.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }
}
