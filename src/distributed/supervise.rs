//! The launcher's watch over its ranks.
//!
//! A rank cannot go on without the others, so the end of one decides for all; and a rank must not outlive the launcher,
//! which alone is known to whoever started it. Each rank leads a process group of its own: a terminal's Ctrl-C then
//! reaches the launcher alone, which passes it on once, and a rank can be ended together with what it has started.

#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::outcome::{Ended, Failure, How, Outcome, Sent, Verdict, judge};
use super::tail::Tail;

/// What whoever started the launcher wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Nothing new.
    GoOn,
    /// The ranks shall finish their step, save and end.
    Stop,
    /// The ranks shall end where they are.
    EndNow,
}

/// How long the launcher waits once a rank has failed.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the ends of other ranks, since the first end that is seen need not be the cause.
    pub cause: Duration,
    /// After that for ranks to end in order, before they are killed.
    pub order: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { cause: Duration::from_secs(1), order: Duration::from_secs(5) }
    }
}

/// Time between two looks at the ranks.
const PAUSE: Duration = Duration::from_millis(10);

/// Starts one process for each command, rank 0 first, and watches over them until all have ended. `request` is asked
/// again and again and tells what is wanted by now.
///
/// Rank 0 writes where the launcher does; of the others, stdout goes nowhere and the last lines of stderr are kept. The
/// standard input of a rank is a pipe that ends with the launcher. To be called from the main thread: the
/// parent-death signal that a rank may ask for comes with the end of the thread that started it.
///
/// # Errors
/// A process cannot be started or waited for; those that were started are then ended.
pub fn supervise(
    commands: Vec<Command>,
    patience: Patience,
    request: impl Fn() -> Request,
) -> io::Result<Outcome> {
    let mut ranks = Ranks::start(commands)?;
    let mut failed_at = None;
    for look in 0.. {
        if ranks.look(look)? {
            break;
        }
        match request() {
            Request::GoOn => {}
            Request::Stop => ranks.stop(),
            Request::EndNow => ranks.kill(),
        }
        if ranks.ended().any(|end| !end.is_fine()) {
            let since = failed_at.get_or_insert_with(Instant::now).elapsed();
            if since >= patience.cause + patience.order {
                ranks.kill();
            } else if since >= patience.cause {
                ranks.terminate();
            }
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
    sent: Sent,
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
            ranks.0.push(Rank { child, tail: None, sent: Sent::Nothing, ended: None });
            // Only now, so that a thread that is refused leaves no process behind.
            ranks.0[rank].tail = stderr.map(Tail::of).transpose()?;
        }
        Ok(ranks)
    }

    /// Finds who has ended since the last look; true if nobody is left.
    fn look(&mut self, look: u64) -> io::Result<bool> {
        for rank in self.0.iter_mut().filter(|rank| rank.ended.is_none()) {
            if let Some(status) = rank.child.try_wait()? {
                rank.ended = Some(Ended { how: How::from(status), sent: rank.sent, look });
            }
        }
        Ok(self.ended().count() == self.0.len())
    }

    fn ended(&self) -> impl Iterator<Item = Ended> {
        self.0.iter().filter_map(|rank| rank.ended)
    }

    /// Passes a request to stop on, once: a rank would take the second for one to end at once.
    fn stop(&mut self) {
        self.alive().filter(|rank| rank.sent == Sent::Nothing).for_each(|rank| rank.ask(Sent::Stop));
    }

    /// Asks ranks to end that have lost one of the others: one that is between two exchanges still tidies up.
    fn terminate(&mut self) {
        self.alive().filter(|rank| rank.sent < Sent::End).for_each(|rank| rank.ask(Sent::End));
    }

    /// Ends ranks with all that they have started.
    fn kill(&mut self) {
        for rank in self.alive() {
            rank.sent = Sent::End;
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
            Verdict::Killed => Outcome::Killed,
            Verdict::Wrong(rank) => Outcome::Wrong(failure(rank)),
            Verdict::Failed(rank) => Outcome::Failed(failure(rank)),
        }
    }
}

impl Rank {
    /// Asks for an end in order; a rank that was asked before is not asked again.
    fn ask(&mut self, what: Sent) {
        if self.sent == Sent::Nothing {
            // As in `kill`.
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        self.sent = what;
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
