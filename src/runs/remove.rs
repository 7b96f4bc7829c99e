//! Removes runs, except those in progress and those that other runs were initialized from.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::overview::Overview;
use super::used;
use oss_config::error::{UserError, user_errors};
use oss_runs::run_dir::{LockError, RunDir, RunStatus, WriteLock};

/// Why a run cannot be removed.
#[derive(Debug)]
pub enum Refused {
    /// It is in progress.
    InUse {
        /// The run.
        run: PathBuf,
        /// The process that is using it.
        by: String,
    },
    /// Other runs were initialized from its weights.
    StartedFrom {
        /// The run.
        run: PathBuf,
        /// The runs that were initialized from it.
        by: Vec<String>,
    },
    /// Its use is unknown.
    Unknown {
        /// The run.
        run: PathBuf,
        /// The runs whose manifests cannot be read.
        by: Vec<String>,
    },
}

impl From<Refused> for UserError {
    fn from(error: Refused) -> Self {
        match error {
            Refused::InUse { run, by } => {
                Self::failed(format!("{} is in use by {by}", run.display())).hint("stop it first")
            }
            Refused::StartedFrom { run, by } => Self::failed(format!(
                "{} was initialized from the weights of {}",
                by.join(", "),
                run.display()
            ))
            .hint(
                "remove those runs first, or pass --force: they keep their weights, but cannot \
                     be retrained from the start",
            ),
            Refused::Unknown { run, by } => Self::failed(format!(
                "{} may have been initialized from the weights of {}: its manifest cannot be read",
                by.join(", "),
                run.display()
            ))
            .hint("repair or remove it first, or pass --force"),
        }
    }
}

user_errors!(Refused);

/// A run that may be removed. It stays locked while this value lives.
#[derive(Debug, Serialize)]
pub struct Removable {
    /// Its directory.
    pub directory: PathBuf,
    /// Its state.
    #[serde(rename = "state")]
    pub status: RunStatus,
    /// Steps taken.
    pub step: u64,
    /// Size of its files in bytes.
    pub bytes: u64,
    #[serde(skip)]
    run: RunDir,
    #[serde(skip)]
    lock: WriteLock,
}

/// Locks `targets` and checks that no other run needs one of them, unless `even_if_used` is set.
///
/// # Errors
/// [`Refused`]; a lock cannot be taken.
pub fn removable(targets: &[RunDir], even_if_used: bool) -> Result<Vec<Removable>> {
    let mut removable = Vec::new();
    for run in targets {
        let Overview { status, step, .. } = Overview::load(run.clone(), &[]);
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
    /// Those of [`RunDir::remove`].
    pub fn remove(self) -> Result<()> {
        Ok(self.run.remove(self.lock)?)
    }
}
