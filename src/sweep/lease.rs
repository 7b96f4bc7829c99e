//! Exclusive claims on trials: one process works on a trial at a time.
//!
//! On one machine the kernel's file lock decides; it is released when its process ends for any reason. On network file
//! systems, locks may not be visible to other machines, so a holder also writes heartbeats, and a heartbeat from
//! another machine is trusted for a while.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use oss_config::error::Hint;
use oss_runs::run_dir::{LockError, RunDir, SweepDir};
use oss_runs::storage::FileLock;

/// A holder on another machine without a heartbeat for this long is considered dead.
const SILENCE: TimeDelta = TimeDelta::minutes(2);

/// Heartbeat interval.
const BEAT: TimeDelta = TimeDelta::seconds(20);

/// The holder of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    host: String,
    pid: u32,
    alive: DateTime<Utc>,
}

/// A claim on a trial, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    lock: FileLock,
    beaten: DateTime<Utc>,
}

impl Lease {
    /// Claims the trial of `run`; `None` if another process is working on it, as part of a sweep or directly.
    ///
    /// # Errors
    /// The files cannot be opened, written or locked.
    pub fn take(dir: &SweepDir, run: &RunDir) -> Result<Option<Self>> {
        let path = dir.claim(&run.id());
        let lock = FileLock::try_exclusive(&path)
            .with_context(|| format!("cannot lock {}", path.display()))
            .hint("check that its file system supports file locks")?;
        let Some(lock) = lock else { return Ok(None) };
        let now = Utc::now();
        let holder: Option<Holder> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if holder.is_some_and(|holder| holder.host != host() && now - holder.alive < SILENCE) {
            return Ok(None);
        }
        // The trial's process may briefly outlive the process that started it.
        if run.exists() {
            match run.lock_for_writing() {
                Ok(lock) => drop(lock),
                Err(LockError::InUse { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let mut claim = Self { path, lock, beaten: now };
        claim.sign(now).with_context(|| format!("cannot write {}", claim.path.display()))?;
        Ok(Some(claim))
    }

    /// Whether a sweep is working on the trial.
    pub fn is_held(dir: &SweepDir, id: &str) -> bool {
        // Do not touch the run's own lock: testing it could block a trial that is starting.
        FileLock::is_held(&dir.claim(id))
    }

    /// Writes a heartbeat if one is due.
    pub fn heartbeat(&mut self) {
        let now = Utc::now();
        if now - self.beaten < BEAT {
            return;
        }
        self.beaten = now;
        if let Err(error) = self.sign(now) {
            tracing::warn!("cannot write {}: {error}", self.path.display());
        }
    }

    fn sign(&mut self, now: DateTime<Utc>) -> io::Result<()> {
        let holder = Holder { host: host(), pid: std::process::id(), alive: now };
        self.lock.write(&serde_json::to_vec(&holder)?)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Other machines need not wait for the timeout of a holder that has finished.
        let _ = self.lock.write(b"");
    }
}

fn host() -> String {
    sysinfo::System::host_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_runs::run_dir::RunsDir;

    fn sweep() -> (tempfile::TempDir, SweepDir, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let (sweep, run) = (runs.sweep("lr"), runs.run("lr", "aa"));
        fs::create_dir_all(sweep.claims()).unwrap();
        (dir, sweep, run)
    }

    #[test]
    fn one_process_holds_it_at_a_time() {
        let (_dir, sweep, run) = sweep();
        assert!(!Lease::is_held(&sweep, "aa"));
        let claim = Lease::take(&sweep, &run).unwrap().unwrap();
        assert!(Lease::take(&sweep, &run).unwrap().is_none());
        assert!(Lease::is_held(&sweep, "aa"));
        drop(claim);
        assert!(Lease::take(&sweep, &run).unwrap().is_some());
    }

    #[test]
    fn a_run_in_use_outside_the_sweep_is_not_free() {
        let (_dir, sweep, run) = sweep();
        run.create().unwrap();
        fs::write(run.manifest(), "{}").unwrap();
        let lock = run.lock_for_writing().unwrap();
        assert!(Lease::take(&sweep, &run).unwrap().is_none());
        drop(lock);
        assert!(Lease::take(&sweep, &run).unwrap().is_some());
    }

    #[test]
    fn a_remote_holder_is_trusted_while_its_heartbeat_is_recent() {
        let (_dir, sweep, run) = sweep();
        let told = |host: &str, alive| {
            let holder = Holder { host: host.to_owned(), pid: 1, alive };
            fs::write(sweep.claim("aa"), serde_json::to_vec(&holder).unwrap()).unwrap();
            Lease::take(&sweep, &run).unwrap().is_some()
        };
        assert!(!told("elsewhere", Utc::now()));
        assert!(told("elsewhere", Utc::now() - SILENCE - TimeDelta::seconds(1)));
        assert!(told(&host(), Utc::now()), "on this machine, the kernel lock decides");
    }
}
