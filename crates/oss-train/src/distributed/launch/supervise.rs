//! The launcher's watch over its ranks.
//!
//! A rank cannot go on without the others, so the end of one decides for all; and a rank must not outlive the launcher,
//! which alone is known to whoever started it. Each rank leads a process group of its own: a terminal's Ctrl-C then
//! reaches the launcher alone, and a rank can be ended together with what it has started.
//!
//! A request to stop is passed on through the rank's standard input and not as a signal. Batch systems and service
//! managers signal the launcher and the ranks alike, and a rank takes a second signal for leave to end without saving.

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

/// How long the launcher waits once a rank has failed.
#[derive(Clone, Copy, Debug)]
pub struct GracePeriod {
    /// For the ends of other ranks, since the first end that is seen need not be the cause.
    pub cause: Duration,
    /// After that for ranks to end in order, before they are killed.
    pub order: Duration,
}

impl Default for GracePeriod {
    fn default() -> Self {
        Self { cause: Duration::from_secs(1), order: Duration::from_secs(5) }
    }
}

/// Time between two looks at the ranks.
const PAUSE: Duration = Duration::from_millis(10);

/// Starts one process for each command, rank 0 first, and watches over them until all have ended. `stop_requested` is
/// asked again and again; once it is so, the ranks are told through their input to stop after the current step.
///
/// Rank 0 writes where the launcher does; of the others, stdout goes nowhere and the last lines of stderr are kept. The
/// standard input of a rank is a pipe that ends with the launcher ([`super::exit_with_parent`] reads it). To be called
/// from the main thread: the parent-death signal that a rank may ask for comes with the end of the thread that started
/// it.
///
/// # Errors
/// A process cannot be started or waited for; those that were started are then ended.
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

/// The ranks, which end with this value at the latest.
struct Ranks(Vec<Rank>);

struct Rank {
    /// Holds the writing end of the rank's standard input.
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
            // Only now, so that a thread that is refused leaves no process behind.
            ranks.0[rank].tail = stderr.map(Tail::of).transpose()?;
        }
        Ok(ranks)
    }

    /// Finds who has ended since the last look, `late` if that blames nobody any more; true if nobody is left.
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

    /// Tells each rank, once, to stop. One that has lost another and is between two exchanges tidies up, too.
    fn ask_to_stop(&mut self) {
        for rank in self.alive().filter(|rank| !rank.asked_to_stop) {
            rank.asked_to_stop = true;
            if let Some(input) = &mut rank.child.stdin {
                // A rank that does not read any more is about to end.
                let _ = input.write_all(STOP);
            }
        }
    }

    /// Ends ranks with all that they have started.
    fn kill(&mut self) {
        for rank in self.alive() {
            // It has not been waited for, so the number is still its own; there is nothing to do about an error.
            let _ = kill_process_group(Pid::from_child(&rank.child), Signal::KILL);
        }
    }

    fn alive(&mut self) -> impl Iterator<Item = &mut Rank> {
        self.0.iter_mut().filter(|rank| rank.ended.is_none())
    }

    /// What the ends of all ranks come to.
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
            // Killed above; whoever cannot be waited for is gone.
            let _ = rank.child.wait();
        }
    }
}
