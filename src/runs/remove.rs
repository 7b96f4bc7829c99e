//! Removing runs: none that is being written, none that another run started from.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::overview::Overview;
use super::used;
use oss_config::error::{UserError, user_errors};
use oss_runs::run_dir::{LockError, RunDir, RunStatus, WriteLock};

/// Why a run is not removed.
#[derive(Debug)]
pub enum Refused {
    /// Somebody writes to it.
    InUse {
        /// The run.
        run: PathBuf,
        /// Who.
        by: String,
    },
    /// Others started from its weights.
    StartedFrom {
        /// The run.
        run: PathBuf,
        /// Who.
        by: Vec<String>,
    },
    /// Nobody can know.
    Unknown {
        /// The run.
        run: PathBuf,
        /// Whose manifests cannot be read.
        by: Vec<String>,
    },
}

impl From<Refused> for UserError {
    fn from(error: Refused) -> Self {
        match error {
            Refused::InUse { run, by } => {
                Self::failed(format!("{} is being written by {by}", run.display())).hint("stop that first")
            }
            Refused::StartedFrom { run, by } => {
                Self::failed(format!("{} started from weights of {}", by.join(", "), run.display())).hint(
                    "remove them first, or give --force: what they trained stays, but they cannot \
                     be trained over again",
                )
            }
            Refused::Unknown { run, by } => Self::failed(format!(
                "{} may have started from weights of {}: its manifest cannot be read",
                by.join(", "),
                run.display()
            ))
            .hint("mend or remove it first, or give --force"),
        }
    }
}

user_errors!(Refused);

/// A run that may be removed. Nobody can begin to write to it while this lives.
#[derive(Debug, Serialize)]
pub struct Removable {
    /// Where it is.
    pub directory: PathBuf,
    /// How it stands.
    #[serde(rename = "state")]
    pub status: RunStatus,
    /// Steps taken.
    pub step: u64,
    /// Bytes of its files.
    pub bytes: u64,
    #[serde(skip)]
    run: RunDir,
    #[serde(skip)]
    lock: WriteLock,
}

/// Locks `targets` and makes sure that none of the runs beside them needs one; `even_if_used` lets that be.
///
/// # Errors
/// [`Refused`]; a lock that cannot be taken.
pub fn removable(targets: &[RunDir], even_if_used: bool) -> Result<Vec<Removable>> {
    let mut removable = Vec::new();
    for run in targets {
        let Overview { status, step, .. } = Overview::of(run.clone(), &[]);
        let lock = run.lock_for_writing().map_err(|error| match error {
            LockError::InUse { run, holder } => anyhow::Error::from(Refused::InUse {
                run,
                by: holder.map_or("another process".to_owned(), |holder| holder.to_string()),
            }),
            other => other.into(),
        })?;
        if !even_if_used {
            check_unused(run, targets)?;
        }
        let directory = run.root().to_owned();
        removable.push(Removable {
            bytes: super::overview::bytes_in(&directory),
            directory,
            status,
            step,
            run: run.clone(),
            lock,
        });
    }
    Ok(removable)
}

fn check_unused(run: &RunDir, targets: &[RunDir]) -> Result<()> {
    let whole = |run: &RunDir| std::path::absolute(run.root());
    let going: Vec<PathBuf> = targets.iter().filter_map(|run| whole(run).ok()).collect();
    let runs = run.runs().with_context(|| format!("cannot find {}", run.root().display()))?;
    let (mut users, mut unknown) = (Vec::new(), Vec::new());
    for (other, needs) in used::all(&runs)? {
        if going.contains(&other.root().to_owned()) {
            continue;
        }
        let name = format!("{}/{}", other.name(), other.id());
        match needs {
            Ok(needs) if needs.starts_from(run) => users.push(name),
            Ok(_) => {}
            Err(_) => unknown.push(name),
        }
    }
    let run = run.root().to_owned();
    if !users.is_empty() {
        return Err(Refused::StartedFrom { run, by: users }.into());
    }
    if !unknown.is_empty() {
        return Err(Refused::Unknown { run, by: unknown }.into());
    }
    Ok(())
}

impl Removable {
    /// Deletes the run.
    ///
    /// # Errors
    /// As [`RunDir::remove`].
    pub fn remove(self) -> Result<()> {
        Ok(self.run.remove(self.lock)?)
    }
}
