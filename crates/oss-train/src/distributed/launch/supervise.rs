//! The launcher's supervision of its ranks.
//!
//! A rank cannot continue without the others, so the failure of one ends all; and no rank may outlive the launcher,
//! which is the only process that its caller knows. Each rank leads its own process group: a terminal's Ctrl-C then
//! reaches only the launcher, and a rank can be killed together with its children.
//!
//! A stop request is forwarded through the rank's standard input and not as a signal. Batch systems and service
//! managers signal the launcher as well as the ranks, and a rank treats a second signal as a request to exit without
//! saving.

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::STOP;
use super::outcome::{Ended, ExitReason, Failure, Outcome, Verdict, judge};
use super::tail::Tail;

/// How long the launcher waits after a rank has failed.
#[derive(Clone, Copy, Debug)]
pub struct GracePeriod {
    /// For other ranks to end by themselves, since the first failure that is seen need not be the cause.
    pub cause: Duration,
    /// After that, for ranks to shut down cleanly before they are killed.
    pub order: Duration,
}

impl Default for GracePeriod {
    fn default() -> Self {
        Self { cause: Duration::from_secs(1), order: Duration::from_secs(5) }
    }
}

/// Interval at which the ranks are polled.
const PAUSE: Duration = Duration::from_millis(10);

/// Starts one process per command, rank 0 first, and supervises them until all have ended. `stop_requested` is polled;
/// once it returns true, the ranks are told through standard input to stop after the current step.
///
/// Rank 0 inherits the launcher's stdout and stderr; for the others, stdout is discarded and the last lines of stderr
/// are kept. A rank's standard input is a pipe that closes when the launcher exits ([`super::exit_with_parent`] reads
/// it). Must be called from the main thread: a rank that has requested a parent-death signal gets it when the thread
/// that started the rank exits.
///
/// # Errors
/// If a process cannot be started or waited for; those already started are killed.
pub fn supervise(
    commands: Vec<Command>,
    patience: GracePeriod,
    stop_requested: impl Fn() -> bool,
) -> io::Result<Outcome> {
    let mut ranks = Ranks::start(commands)?;
    let mut failed_at = None;
    for look in 0.. {
        let since = failed_at.map(|at: Instant| at.elapsed());
        if ranks.look(look, since.is_some_and(|since| since >= patience.cause))? {
            break;
        }
        match since {
            Some(since) if since >= patience.cause + patience.order => ranks.kill(),
            Some(since) if since >= patience.cause => ranks.ask_to_stop(),
            _ if stop_requested() => ranks.ask_to_stop(),
            _ => {}
        }
        if failed_at.is_none() && ranks.ended().any(|end| !end.is_fine()) {
            failed_at = Some(Instant::now());
        }
        thread::sleep(PAUSE);
    }
    Ok(ranks.outcome())
}

/// The ranks, which are killed when this is dropped.
struct Ranks(Vec<Rank>);

struct Rank {
    /// Owns the write end of the rank's standard input.
    child: Child,
    tail: Option<Tail>,
    asked_to_stop: bool,
    ended: Option<Ended>,
}

impl Ranks {
    fn start(commands: Vec<Command>) -> io::Result<Self> {
        let mut ranks = Self(Vec::with_capacity(commands.len()));
        for (rank, mut command) in commands.into_iter().enumerate() {
            command.stdin(Stdio::piped()).process_group(0);
            if rank > 0 {
                command.stdout(Stdio::null()).stderr(Stdio::piped());
            }
            let mut child = command.spawn()?;
            let stderr = child.stderr.take();
            ranks.0.push(Rank { child, tail: None, asked_to_stop: false, ended: None });
            // Only now, so that no process is left behind if the thread cannot be started.
            ranks.0[rank].tail = stderr.map(Tail::of).transpose()?;
        }
        Ok(ranks)
    }

    /// Polls for ranks that have ended; `late` means that they can no longer be the cause. Returns true if none is
    /// left.
    fn look(&mut self, look: u64, late: bool) -> io::Result<bool> {
        for rank in self.alive() {
            if let Some(status) = rank.child.try_wait()? {
                rank.ended = Some(Ended { how: ExitReason::from(status), look, late });
            }
        }
        Ok(self.alive().next().is_none())
    }

    fn ended(&self) -> impl Iterator<Item = Ended> {
        self.0.iter().filter_map(|rank| rank.ended)
    }

    /// Tells each rank, once, to stop. After a failure, the remaining ranks that are not inside a collective shut down
    /// cleanly as well.
    fn ask_to_stop(&mut self) {
        for rank in self.alive().filter(|rank| !rank.asked_to_stop) {
            rank.asked_to_stop = true;
            if let Some(input) = &mut rank.child.stdin {
                // A rank that no longer reads is about to exit.
                let _ = input.write_all(STOP);
            }
        }
    }

    /// Kills the ranks and their children.
    fn kill(&mut self) {
        for rank in self.alive() {
            // It has not been waited for, so the pid is still valid; an error cannot be handled.
            let _ = kill_process_group(Pid::from_child(&rank.child), Signal::KILL);
        }
    }

    fn alive(&mut self) -> impl Iterator<Item = &mut Rank> {
        self.0.iter_mut().filter(|rank| rank.ended.is_none())
    }

    /// The outcome of the group, given how all ranks ended.
    fn outcome(&self) -> Outcome {
        let ended: Vec<Ended> = self.ended().collect();
        let failure = |rank: usize| Failure {
            rank,
            how: ended[rank].how,
            last_lines: self.0[rank].tail.as_ref().map(Tail::lines).unwrap_or_default(),
        };
        match judge(&ended) {
            Verdict::Done => Outcome::Done,
            Verdict::Stopped => Outcome::Stopped,
            Verdict::Wrong(rank) => Outcome::Wrong(failure(rank)),
            Verdict::Failed(rank) => Outcome::Failed(failure(rank)),
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.kill();
        for rank in self.alive() {
            // Killed above; a process that cannot be waited for is gone.
            let _ = rank.child.wait();
        }
    }
}
