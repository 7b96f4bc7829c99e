//! How a group of ranks ended, and which rank caused it.

use oss_config::error::Status;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use signal_hook::consts::{SIGABRT, SIGKILL};
use signal_hook::low_level::signal_name;

/// How a group of ranks ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every rank completed its work.
    Done,
    /// The ranks stopped on request and can resume.
    Stopped,
    /// A rank rejected the experiment or the command line; a restart would not help.
    Wrong(Failure),
    /// A rank failed and took the others with it.
    Failed(Failure),
}

/// The rank that failed first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// Its number.
    pub rank: usize,
    /// How it ended.
    pub how: ExitReason,
    /// The last lines it wrote to stderr; empty for rank 0, whose stderr is the launcher's.
    pub last_lines: Vec<String>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// Killed by this signal.
    Signal(i32),
    /// Exited with this status.
    Status(i32),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} {}", self.rank, self.how)?;
        if !self.last_lines.is_empty() {
            write!(f, "; its last output:")?;
        }
        self.last_lines.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

impl ExitReason {
    /// The meaning of the exit status, if the process exited by itself with a status that this program uses.
    pub fn status(self) -> Option<Status> {
        match self {
            Self::Signal(_) => None,
            Self::Status(code) => Status::from_code(code),
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Signal(SIGKILL) => write!(f, "was killed by SIGKILL (out of memory? see dmesg)"),
            Self::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::Status(status) => write!(f, "exited with status {status}"),
        }
    }
}

impl From<ExitStatus> for ExitReason {
    fn from(status: ExitStatus) -> Self {
        // A process that has ended has either a signal or a status.
        match status.signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Status(status.code().unwrap_or(Status::Failed.code())),
        }
    }
}

/// How one rank ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub how: ExitReason,
    /// Index of the launcher's poll that found it ended; ranks found by the same poll count as simultaneous.
    pub look: u64,
    /// Whether the launcher had already begun to end the group, which makes this a consequence.
    pub late: bool,
}

impl Ended {
    /// Whether the other ranks may keep running.
    pub fn is_fine(&self) -> bool {
        matches!(self.how.status(), Some(Status::Done | Status::Stopped))
    }

    /// Whether it was killed from outside, for example because the system ran out of memory. An abort does not count:
    /// native code also aborts when it merely finds that a peer has vanished.
    fn is_violent(&self) -> bool {
        matches!(self.how, ExitReason::Signal(signal) if signal != SIGABRT)
    }
}

/// How the group ended, and the rank to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Stopped,
    Wrong(usize),
    Failed(usize),
}

/// Determines the verdict from how each rank ended; `ended` is indexed by rank.
pub(super) fn judge(ended: &[Ended]) -> Verdict {
    let failures = || ended.iter().enumerate().filter(|(_, end)| !end.is_fine() && !end.late);
    let violent = failures().filter(|(_, end)| end.is_violent()).min_by_key(|(_, end)| end.look);
    if let Some((rank, _)) = violent {
        return Verdict::Failed(rank);
    }
    if let Some((rank, _)) = failures().find(|(_, end)| end.how.status() == Some(Status::Wrong)) {
        return Verdict::Wrong(rank);
    }
    let by_status = |end: &Ended| matches!(end.how, ExitReason::Status(_));
    if let Some((rank, _)) = failures().min_by_key(|(_, end)| (end.look, by_status(end))) {
        return Verdict::Failed(rank);
    }
    let stopped = ended.iter().any(|end| end.how.status() == Some(Status::Stopped));
    if stopped { Verdict::Stopped } else { Verdict::Done }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Ended = Ended { how: ExitReason::Status(0), look: 9, late: false };

    fn status(status: i32, look: u64) -> Ended {
        Ended { how: ExitReason::Status(status), look, late: false }
    }

    fn signal(signal: i32, look: u64) -> Ended {
        Ended { how: ExitReason::Signal(signal), look, late: false }
    }

    #[test]
    fn successful_and_stopped_ranks_are_not_failures() {
        assert_eq!(judge(&[FINE, FINE]), Verdict::Done);
        assert_eq!(judge(&[FINE, status(75, 0)]), Verdict::Stopped);
    }

    #[test]
    fn the_first_failure_is_the_cause() {
        assert_eq!(judge(&[status(1, 5), status(1, 4), FINE]), Verdict::Failed(1));
        assert_eq!(judge(&[status(75, 1), status(1, 4)]), Verdict::Failed(1));
    }

    #[test]
    fn a_killed_rank_is_the_cause_of_errors_on_others() {
        assert_eq!(judge(&[status(1, 4), status(2, 4), signal(SIGKILL, 5)]), Verdict::Failed(2));
        // The abort came later than the error exit.
        assert_eq!(judge(&[signal(SIGABRT, 5), status(1, 4)]), Verdict::Failed(1));
        assert_eq!(judge(&[status(1, 4), signal(SIGABRT, 4)]), Verdict::Failed(1));
    }

    #[test]
    fn a_rejected_experiment_is_not_a_failure() {
        assert_eq!(judge(&[status(1, 3), status(2, 4)]), Verdict::Wrong(1));
    }

    #[test]
    fn ranks_ended_by_the_launcher_are_not_the_cause() {
        let killed = Ended { late: true, ..signal(SIGKILL, 7) };
        assert_eq!(judge(&[killed, status(1, 3)]), Verdict::Failed(1));
        let gave_up = Ended { late: true, ..status(2, 7) };
        assert_eq!(judge(&[gave_up, status(1, 3)]), Verdict::Failed(1));
    }

    #[test]
    fn failures_are_described_in_full_sentences() {
        let last_lines = vec!["step 7".to_owned(), "step 8".to_owned()];
        insta::assert_snapshot!(Failure { rank: 2, how: ExitReason::Signal(SIGKILL), last_lines }, @r"
        rank 2 was killed by SIGKILL (out of memory? see dmesg); its last output:
          | step 7
          | step 8
        ");
        insta::assert_snapshot!(ExitReason::Signal(11), @"was killed by SIGSEGV");
        insta::assert_snapshot!(ExitReason::Signal(60), @"was killed by signal 60");
        insta::assert_snapshot!(ExitReason::Status(1), @"exited with status 1");
    }
}
