//! One process that works on one trial.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::claim::Claim;
use super::trial::Trial;
use crate::distributed::{STOP, TIED};
use crate::experiment::{ENVIRONMENT_PREFIX, LastStage};
use crate::plan::Stage;
use crate::run_dir::{RunsDir, SweepDir, write_atomic};

/// What the process is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Train to this step.
    pub to_step: u64,
    /// Where that is the end of training: the last stage.
    pub until: LastStage,
}

/// Which share of the machine it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Value of `CUDA_VISIBLE_DEVICES`; none to leave it as it is.
    pub gpus: Option<String>,
}

/// How the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It did what it was to do.
    Done,
    /// It stopped in order, with a checkpoint.
    Stopped,
    /// A signal ended it.
    Killed(String),
    /// It failed, with these words.
    Failed(String),
}

/// A process at work, and the claim that it works under. It ends with this value, and with this program.
pub struct Worker {
    /// Index of the trial.
    pub trial: usize,
    /// Index of its share of the machine.
    pub share: usize,
    /// Steps that had been taken before.
    pub from_step: u64,
    claim: Claim,
    child: Child,
    log: PathBuf,
    log_start: u64,
    asked_to_stop: bool,
}

impl Worker {
    /// Starts the program on one trial, as `oss-run run` would be by hand. To be called from the main thread, with
    /// whose end the process ends as well.
    ///
    /// # Errors
    /// The trial's files cannot be written; the process cannot be started.
    pub fn start(
        (index, trial): (usize, &Trial),
        job: &Job,
        (slot, share): (usize, &Share),
        claim: Claim,
        dir: &SweepDir,
        runs: &RunsDir,
    ) -> Result<Self> {
        let id = trial.id();
        let file = dir.trial(&id);
        let text = trial.graph.experiment.to_toml().context("cannot express a trial as TOML")?;
        if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            write_atomic(&file, |out| out.write_all(text.as_bytes()))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let log_path = dir.log(&id);
        let log = OpenOptions::new().create(true).append(true).open(&log_path);
        let log = log.with_context(|| format!("cannot write {}", log_path.display()))?;
        let log_start = log.metadata().map_or(0, |log| log.len());
        let program = std::env::current_exe().context("this program cannot find its own file")?;
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
            log_start,
            asked_to_stop: false,
        })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ended(&mut self) -> Result<Option<End>> {
        self.claim.beat();
        let status = self.child.try_wait().context("cannot wait for a trial")?;
        Ok(status.map(|status| self.end_of(status)))
    }

    fn end_of(&self, status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(0), _) => End::Done,
            (Some(75), _) => End::Stopped,
            (None, Some(signal)) => {
                End::Killed(format!("killed by signal {signal} (out of memory? see dmesg)"))
            }
            _ => End::Failed(last_words(&self.log, self.log_start)),
        }
    }

    /// Tells it, once, to stop after its current step.
    pub fn ask_to_stop(&mut self) {
        if !std::mem::replace(&mut self.asked_to_stop, true)
            && let Some(input) = &mut self.child.stdin
        {
            // A process that does not read any more is about to end.
            let _ = input.write_all(STOP);
        }
    }

    /// What it said.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nothing happens to one that has ended; its ranks end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(
    program: &Path,
    file: &Path,
    job: &Job,
    steps: u64,
    share: &Share,
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
    // What these say is in the trial's file already.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
            command.env_remove(name);
        }
    }
    if let Some(gpus) = &share.gpus {
        command.env("CUDA_VISIBLE_DEVICES", gpus);
    }
    // A group of its own: a terminal's Ctrl-C reaches the sweep alone, which lets its trials finish their step.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).process_group(0);
    command
}

/// The last error in what the process said, in one line.
fn last_words(log: &Path, start: u64) -> String {
    let text = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(text.get(start as usize..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().rposition(|line| line.starts_with("error: "));
    let words = match error {
        Some(at) => lines[at..].join("; "),
        None => lines.last().map_or("it said nothing", |line| *line).to_owned(),
    };
    words.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_this_start_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(
            &log,
            "error: an old one\nrun a/b\nerror: train failed\n  because it is full\nfix: free some\n",
        )
        .unwrap();
        assert_eq!(last_words(&log, 18), "train failed; because it is full; fix: free some");
        assert_eq!(last_words(&log, 10_000), "it said nothing");
        fs::write(&log, "\nsomething odd\n\n").unwrap();
        assert_eq!(last_words(&log, 0), "something odd");
    }
}
