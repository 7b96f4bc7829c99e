//! Paths of a sweep's files. No other module hard-codes these names.
//!
//! ```text
//! runs/<name>/
//!   <run id>/...          each trial is an ordinary run
//!   sweep/
//!     ledger.jsonl        the trials and the decisions about them, in order
//!     results.jsonl       the status of each trial
//!     trials/<id>.toml    the resolved experiment of each trial
//!     logs/<id>.log       the output of the trial's process
//!     claims/<id>         held while a process works on the trial
//!     .lock               held while the ledger is being written
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::RunsDir;

/// The directory of one sweep, next to the runs of its trials. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepDir {
    root: PathBuf,
}

impl RunsDir {
    /// The sweep whose trials are the runs of this name.
    pub fn sweep(&self, name: &str) -> SweepDir {
        SweepDir { root: self.root().join(name).join("sweep") }
    }

    /// The names of all sweeps.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn sweeps(&self) -> io::Result<Vec<String>> {
        let names =
            self.names()?.into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let mut sweeps: Vec<String> = names.filter(|name| self.sweep(name).ledger().is_file()).collect();
        sweeps.sort();
        Ok(sweeps)
    }
}

impl SweepDir {
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The trials and the decisions about them.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.jsonl")
    }

    /// The file that is locked while the ledger is being written.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// The status of each trial, one line per trial.
    pub fn results(&self) -> PathBuf {
        self.root.join("results.jsonl")
    }

    /// The directory of the trials' experiments.
    pub fn trials(&self) -> PathBuf {
        self.root.join("trials")
    }

    /// The experiment of one trial.
    pub fn trial(&self, id: &str) -> PathBuf {
        self.trials().join(format!("{id}.toml"))
    }

    /// The directory of the trials' logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The output of the processes of one trial.
    pub fn log(&self, id: &str) -> PathBuf {
        self.logs().join(format!("{id}.log"))
    }

    /// The directory of the claims.
    pub fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    /// The file that is locked while a process works on a trial.
    pub fn claim(&self, id: &str) -> PathBuf {
        self.claims().join(id)
    }
}
