//! One writer a run.
//!
//! The lock is the kernel's (`flock`), so it ends with the process that holds it, however that ends; the file's
//! content only tells others whom they wait for. Readers take no lock: every file that they read is replaced
//! atomically or only grows.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::path::PathBuf;

use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::RunDir;
use super::atomic::remove_unfinished;

/// The right to write to a run directory, until dropped.
#[derive(Debug)]
pub struct WriteLock {
    // Holds the kernel's lock for as long as it is open.
    _file: File,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id on `host`.
    pub pid: u32,
    /// Name of the machine.
    pub host: String,
    /// When the lock was taken.
    pub since: DateTime<Utc>,
}

/// Why a run directory cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process writes there.
    #[error(
        "{} is in use by {}; wait for it, stop it, or start a run of its own with --new",
        .run.display(),
        describe(.holder.as_ref())
    )]
    InUse {
        /// The run directory.
        run: PathBuf,
        /// The other process, if it has told.
        holder: Option<Holder>,
    },
    /// The lock file cannot be opened, written or locked.
    #[error("cannot lock {}; check that its file system is mounted, writable and knows file locks", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl RunDir {
    /// Takes the run's write lock, which ends when the value is dropped or the process dies, and removes what a
    /// killed writer left unfinished.
    ///
    /// # Errors
    /// [`LockError::InUse`] at once when another process, or another part of this one, holds it.
    pub fn lock_for_writing(&self) -> Result<WriteLock, LockError> {
        let path = self.lock();
        let failed = |source| LockError::Io { path: path.clone(), source };
        // Not truncated: until the lock is ours, the content belongs to its holder.
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
                return Err(LockError::InUse { run: self.root().to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let holder = Holder {
            pid: std::process::id(),
            host: sysinfo::System::host_name().unwrap_or_default(),
            since: Utc::now(),
        };
        introduce(&mut file, &holder).map_err(failed)?;
        remove_unfinished(self.root()).map_err(failed)?;
        Ok(WriteLock { _file: file })
    }
}

/// Writes who holds the lock into its file.
fn introduce(file: &mut File, holder: &Holder) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let mut text = serde_json::to_vec(holder)?;
    text.push(b'\n');
    file.write_all(&text)
}

fn describe(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, host, since }) => {
            let since = since.with_timezone(&Local).to_rfc3339_opts(SecondsFormat::Secs, false);
            format!("process {pid} on {host} since {since}")
        }
        None => "another process".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let text = error.to_string();
        assert!(text.contains(&format!("in use by process {} on ", std::process::id())), "{text}");
        assert!(text.ends_with("with --new"), "{text}");
        drop(lock);
        run.lock_for_writing().unwrap();
    }

    #[test]
    fn a_dead_holders_words_do_not_matter() {
        let (_dir, run) = run();
        fs::write(run.lock(), "x".repeat(1000)).unwrap();
        let lock = run.lock_for_writing().unwrap();
        let holder: Holder = serde_json::from_slice(&fs::read(run.lock()).unwrap()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        fs::write(run.lock(), "damaged").unwrap();
        assert!(run.lock_for_writing().unwrap_err().to_string().contains("in use by another process"));
        drop(lock);
    }

    #[test]
    fn unfinished_files_go_once_the_lock_is_held() {
        let (_dir, run) = run();
        let unfinished = run.root().join(".manifest.json.unfinished-Ab12");
        fs::write(&unfinished, "{").unwrap();
        let _lock = run.lock_for_writing().unwrap();
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = RunDir::new("/nowhere/run").lock_for_writing().unwrap_err();
        assert!(error.to_string().starts_with("cannot lock /nowhere/run/.lock"), "{error}");
    }
}
