//! One writer per run.
//!
//! The contents of the lock file tell others who holds the lock. Readers take no lock: every file they read is replaced
//! atomically or only grows.

use oss_config::error::{UserError, user_errors};
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::RunDir;
use super::atomic::remove_unfinished;
use crate::storage::{Disk, FileLock, clear_leftovers};

/// The right to write to a run directory, until dropped.
#[derive(Debug)]
pub struct WriteLock {
    _lock: FileLock,
}

/// The holder of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process ID on `host`.
    pub pid: u32,
    /// Host name.
    pub host: String,
    /// When the lock was taken.
    pub since: DateTime<Utc>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, host, since } = self;
        let since = since.with_timezone(&Local).to_rfc3339_opts(SecondsFormat::Secs, false);
        write!(f, "process {pid} on {host} since {since}")
    }
}

/// Why a run directory cannot be written.
#[derive(Debug)]
pub enum LockError {
    /// Another process is writing to it.
    InUse {
        /// The run directory.
        run: PathBuf,
        /// The other process, if known.
        holder: Option<Holder>,
    },
    /// The lock file cannot be opened, written or locked.
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<LockError> for UserError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::InUse { run, holder } => {
                Self::failed(format!("{} is in use by {}", run.display(), describe(holder.as_ref())))
                    .hint("wait for it, stop it, or start a separate run with --new")
            }
            LockError::Io { path, source } => Self::failed(format!("cannot lock {}", path.display()))
                .hint("check that its file system is mounted, writable and supports file locks")
                .because(source),
        }
    }
}

user_errors!(LockError);

impl RunDir {
    /// Takes the run's write lock, which ends when the value is dropped or the process dies, and removes what a killed
    /// writer left unfinished. An export that the writer had moved aside gets its name back.
    ///
    /// # Errors
    /// [`LockError::InUse`], immediately, if another process or another part of this one holds the lock.
    pub fn lock_for_writing(&self) -> Result<WriteLock, LockError> {
        let path = self.lock();
        let failed = |source| LockError::Io { path: path.clone(), source };
        let Some(mut lock) = FileLock::try_exclusive(&path).map_err(failed)? else {
            return Err(LockError::InUse { run: self.root().to_owned(), holder: self.holder() });
        };
        let holder = Holder {
            pid: std::process::id(),
            host: sysinfo::System::host_name().unwrap_or_default(),
            since: Utc::now(),
        };
        introduce(&mut lock, &holder).map_err(failed)?;
        remove_unfinished(self.root()).map_err(failed)?;
        let export = self.export();
        let is_export = |name: &str| export.file_name().is_some_and(|own| own == name);
        clear_leftovers(&Disk::default(), self.root(), is_export);
        Ok(WriteLock { _lock: lock })
    }

    /// Whether the run is being written. This never keeps a writer out for longer than a moment.
    pub fn in_use(&self) -> bool {
        FileLock::is_held(&self.lock())
    }

    /// The last or current writer of the run, if known.
    pub fn holder(&self) -> Option<Holder> {
        fs::read(self.lock()).ok().and_then(|text| serde_json::from_slice(&text).ok())
    }
}

/// Writes the holder into the lock file.
fn introduce(lock: &mut FileLock, holder: &Holder) -> io::Result<()> {
    let mut text = serde_json::to_vec(holder)?;
    text.push(b'\n');
    lock.write(&text)
}

fn describe(holder: Option<&Holder>) -> String {
    holder.map_or("another process".into(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    fn run() -> (tempfile::TempDir, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().join("tiny/aa"));
        run.create().unwrap();
        (dir, run)
    }

    #[test]
    fn a_second_writer_is_told_who_holds_the_lock() {
        let (_dir, run) = run();
        let lock = run.lock_for_writing().unwrap();
        let error = run.lock_for_writing().unwrap_err();
        assert!(
            matches!(&error, LockError::InUse { holder: Some(holder), .. } if holder.pid == std::process::id())
        );
        let report = ErrorReport::of(error);
        assert!(
            report.message.contains(&format!("in use by process {} on ", std::process::id())),
            "{report}"
        );
        assert!(report.hints[0].ends_with("with --new"), "{report}");
        drop(lock);
        run.lock_for_writing().unwrap();
    }

    #[test]
    fn leftover_contents_of_the_lock_file_do_not_matter() {
        let (_dir, run) = run();
        fs::write(run.lock(), "x".repeat(1000)).unwrap();
        let lock = run.lock_for_writing().unwrap();
        let holder: Holder = serde_json::from_slice(&fs::read(run.lock()).unwrap()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        fs::write(run.lock(), "damaged").unwrap();
        assert!(matches!(run.lock_for_writing(), Err(LockError::InUse { holder: None, .. })));
        drop(lock);
    }

    #[test]
    fn taking_the_lock_removes_unfinished_files() {
        let (_dir, run) = run();
        let unfinished = run.root().join(".manifest.json.unfinished-Ab12");
        fs::write(&unfinished, "{").unwrap();
        let _lock = run.lock_for_writing().unwrap();
        assert!(!unfinished.exists());
    }

    #[test]
    fn testing_neither_takes_nor_keeps_the_lock() {
        let (_dir, run) = run();
        assert!(!run.in_use(), "there was never a writer");
        let lock = run.lock_for_writing().unwrap();
        assert!(run.in_use());
        assert_eq!(run.holder().unwrap().pid, std::process::id());
        drop(lock);
        assert!(!run.in_use());
        run.lock_for_writing().unwrap();
    }

    #[test]
    fn a_symlink_as_lock_file_is_rejected() {
        let (dir, run) = run();
        let victim = dir.path().join("victim");
        fs::write(&victim, "theirs").unwrap();
        std::os::unix::fs::symlink(&victim, run.lock()).unwrap();
        assert!(matches!(run.lock_for_writing(), Err(LockError::Io { .. })));
        assert_eq!(fs::read_to_string(victim).unwrap(), "theirs");
    }

    #[test]
    fn a_missing_directory_is_reported() {
        let error = RunDir::new("/nowhere/run").lock_for_writing().unwrap_err();
        assert!(ErrorReport::of(error).message.starts_with("cannot lock /nowhere/run/.lock"));
    }
}
