//! A process that runs one trial.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::gpu_assignment::GpuAssignment;
use super::lease::Lease;
use super::trial::Trial;
use crate::plan::Stage;
use oss_config::error::{ErrorReport, Status};
use oss_config::{ENVIRONMENT_PREFIX, LastStage};
use oss_runs::run_dir::{Manifest, RunDir, RunsDir, SweepDir, write_atomic};
use oss_train::distributed::{ExitReason, STOP, TIED};

/// The task of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Train to this step.
    pub to_step: u64,
    /// The last stage to run, if `to_step` is the end of training.
    pub until: LastStage,
}

/// How the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It completed its task.
    Done,
    /// It stopped cleanly, with a checkpoint.
    Stopped,
    /// It was killed by a signal.
    Killed(ExitReason),
    /// It failed, for this reason.
    Failed(ErrorReport),
}

/// A running process and its claim. The process ends when this value is dropped or this program ends.
pub struct Worker {
    /// Index of the trial.
    pub trial: usize,
    /// Index of its GPU assignment.
    pub share: usize,
    /// Steps taken before this start.
    pub from_step: u64,
    claim: Lease,
    child: Child,
    log: PathBuf,
    run: RunDir,
    /// Number of earlier starts of the run.
    starts: usize,
    asked_to_stop: bool,
}

impl Worker {
    /// Starts `oss-run run` on one trial. Must be called from the main thread, since the process ends with that thread.
    ///
    /// # Errors
    /// The trial's files cannot be written; the process cannot be started.
    pub fn start(
        (index, trial): (usize, &Trial),
        job: &Job,
        (slot, share): (usize, &GpuAssignment),
        claim: Lease,
        dir: &SweepDir,
        runs: &RunsDir,
    ) -> Result<Self> {
        let id = trial.id();
        let file = dir.trial(&id);
        let text = trial.graph.experiment.to_toml().context("cannot serialize the trial as TOML")?;
        if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            write_atomic(&file, |out| out.write_all(text.as_bytes()))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let log_path = dir.log(&id);
        let log = OpenOptions::new().create(true).append(true).open(&log_path);
        let log = log.with_context(|| format!("cannot write {}", log_path.display()))?;
        let starts = starts(trial.run());
        let program = std::env::current_exe().context("cannot find the path of this executable")?;
        let child = command(&program, &file, job, trial.steps(), share, runs, log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self {
            trial: index,
            share: slot,
            from_step: trial.steps_taken(),
            claim,
            child,
            log: log_path,
            run: trial.run().clone(),
            starts,
            asked_to_stop: false,
        })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Its status cannot be queried.
    pub fn ended(&mut self) -> Result<Option<End>> {
        self.claim.heartbeat();
        let status = self.child.try_wait().context("cannot wait for a trial")?;
        Ok(status.map(|status| self.end_of(status)))
    }

    fn end_of(&self, status: ExitStatus) -> End {
        let how = ExitReason::from(status);
        match how.status() {
            Some(Status::Done) => End::Done,
            Some(Status::Stopped) => End::Stopped,
            _ if matches!(how, ExitReason::Signal(_)) => End::Killed(how),
            _ => End::Failed(recorded(&self.run, self.starts).unwrap_or_else(|| ErrorReport {
                message: format!("its process {how} without recording a reason"),
                causes: Vec::new(),
                hints: vec![format!("see the log in {}", self.log.display())],
            })),
        }
    }

    /// Asks it, once, to stop after its current step.
    pub fn ask_to_stop(&mut self) {
        if !std::mem::replace(&mut self.asked_to_stop, true)
            && let Some(input) = &mut self.child.stdin
        {
            // A process that no longer reads is about to exit.
            let _ = input.write_all(STOP);
        }
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // No effect on a process that has exited; its ranks end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(
    program: &Path,
    file: &Path,
    job: &Job,
    steps: u64,
    share: &GpuAssignment,
    runs: &RunsDir,
    log: File,
) -> Command {
    let mut command = Command::new(program);
    let mut arguments: Vec<OsString> =
        vec!["run".into(), file.into(), "--runs-dir".into(), runs.root().into()];
    if job.to_step < steps {
        arguments.extend(["--stop-at-step".into(), job.to_step.to_string().into()]);
        arguments.extend(["--until".into(), Stage::Train.name().into()]);
    } else {
        arguments.extend(["--until".into(), super::trial::last_stage(job.until).name().into()]);
    }
    command.args(arguments).env(TIED, "1");
    // The trial's file already includes these overrides.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
            command.env_remove(name);
        }
    }
    if let Some(gpus) = &share.gpus {
        command.env("CUDA_VISIBLE_DEVICES", gpus);
    }
    // A separate process group: Ctrl-C reaches only the sweep, which lets its trials finish their step.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).process_group(0);
    command
}

/// Number of starts recorded in a run's manifest.
fn starts(run: &RunDir) -> usize {
    Manifest::load(run).map_or(0, |manifest| manifest.segments.len())
}

/// The recorded error of the last start of `run`; `None` unless it came after the first `before` starts.
fn recorded(run: &RunDir, before: usize) -> Option<ErrorReport> {
    let mut segments = Manifest::load(run).ok()?.segments;
    if segments.len() > before { segments.pop()?.error } else { None }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::Value;

    use super::*;
    use oss_runs::run_dir::Segment;

    #[test]
    fn a_failure_is_the_error_recorded_by_the_last_start() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        assert_eq!(recorded(&run, 0), None, "no manifest");
        let failed = |message: &str| Segment {
            started: Utc::now(),
            error: Some(ErrorReport {
                message: message.into(),
                causes: vec!["it is full".into()],
                hints: vec!["free some".into()],
            }),
            ..Segment::default()
        };
        let mut manifest = Manifest::new("0123456789", "tiny", Value::Null);
        manifest.segments = vec![failed("an old one"), failed("train failed")];
        manifest.save(&run).unwrap();
        assert_eq!(recorded(&run, 1), manifest.segments[1].error);
        assert_eq!(recorded(&run, 2), None, "nothing since");
        manifest.segments.push(Segment { error: None, ..failed("") });
        manifest.save(&run).unwrap();
        assert_eq!(recorded(&run, 1), None, "its last start did not fail");
    }
}
