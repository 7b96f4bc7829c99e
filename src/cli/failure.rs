//! How the program ends: exit status, and the last words on stderr.

use std::any::Any;
use std::io::IsTerminal;
use std::panic::{self, AssertUnwindSafe};

use anyhow::Result;

use crate::distributed::PlacementError;
use crate::experiment::ExperimentErrors;
use crate::interrupt::Stopped;
use crate::plan::PlanError;
use crate::run_dir::{ResolveError, redact};
use crate::runs::QueryError;
use crate::runs::label::NoLabel;
use crate::sweep::SweepError;

/// A command line that can be parsed and makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Ranks that ended, and not well.
#[derive(Debug, thiserror::Error)]
#[error("{}", .message.as_deref().unwrap_or("rank 0 has said why"))]
pub struct Ended {
    /// What is left to say; none where rank 0, whose words are on the screen, has said it all.
    pub message: Option<String>,
    /// The exit status that it deserves.
    pub status: Status,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All done.
    Done,
    /// The run failed.
    Failed,
    /// The experiment or the command line is wrong.
    Wrong,
    /// Stopped on request; it can go on.
    Stopped,
}

impl Status {
    /// The status that `outcome` deserves.
    pub fn of(outcome: &Result<()>) -> Self {
        let Err(error) = outcome else { return Self::Done };
        if let Some(ended) = error.downcast_ref::<Ended>() {
            return ended.status;
        }
        if error.chain().any(|cause| cause.is::<Stopped>()) {
            return Self::Stopped;
        }
        let is_wrong = error.chain().any(|cause| {
            cause.is::<Usage>()
                || cause.is::<ExperimentErrors>()
                || cause.is::<PlanError>()
                || cause.is::<PlacementError>()
                || cause.is::<ResolveError>()
                || cause.is::<QueryError>()
                || cause.is::<NoLabel>()
                || cause.is::<SweepError>()
        });
        if is_wrong { Self::Wrong } else { Self::Failed }
    }

    /// The status for the shell.
    pub fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Wrong => 2,
            Self::Stopped => 75,
        }
    }
}

/// Runs `work`, tells on stderr what went wrong, and says how it ended. A panic is told as the bug that it is.
pub fn guarded(work: impl FnOnce() -> Result<()>) -> Status {
    let outcome = match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(payload) => {
            let words = bug(payload.as_ref());
            eprintln!("error: {}", redact(&words));
            tracing::debug!("{words}");
            return Status::Failed;
        }
    };
    let status = Status::of(&outcome);
    if let Err(error) = outcome
        && error.downcast_ref::<Ended>().is_none_or(|ended| ended.message.is_some())
    {
        let words = render(&error, status);
        eprintln!("{}", redact(&words));
        // Into this rank's log, too: on many ranks, only one of them is on the screen.
        tracing::debug!("{words}");
    }
    status
}

fn bug(payload: &(dyn Any + Send)) -> String {
    let what = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!(
        "this is a bug in oss-run {}: {what}\nrun `oss-run resume last` to go on from the last checkpoint, and report \
         the lines above with the experiment file",
        env!("CARGO_PKG_VERSION")
    )
}

fn render(error: &anyhow::Error, status: Status) -> String {
    if let Some(problems) = error.downcast_ref::<ExperimentErrors>() {
        return problems.render(std::io::stderr().is_terminal());
    }
    if status == Status::Stopped {
        // Everything that says where it stopped is context above the request itself.
        return format!("{error}");
    }
    let mut messages: Vec<String> = Vec::new();
    for cause in error.chain() {
        let message = cause.to_string();
        // Some types show their source inside their own message.
        if !messages.last().is_some_and(|above| above.contains(&message)) {
            messages.push(message);
        }
    }
    let Some((last, above)) = messages.split_last() else { return String::new() };
    let Some((first, between)) = above.split_first() else { return format!("error: {last}") };
    let fix = first.rsplit_once("; ").filter(|_| !last.contains("; "));
    let mut text = format!("error: {}", fix.map_or(first.as_str(), |(what, _)| what));
    for cause in between.iter().chain([last]) {
        text.push_str(&format!("\n  because {cause}"));
    }
    if let Some((_, fix)) = fix {
        text.push_str(&format!("\nfix: {fix}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn each_kind_of_error_has_its_status() {
        let wrong: Result<()> = Err(Usage("x".into())).context("above");
        let stopped: Result<()> = Err(Stopped).context("above");
        for (outcome, status) in [
            (Ok(()), Status::Done),
            (Err(anyhow!("x")), Status::Failed),
            (wrong, Status::Wrong),
            (stopped, Status::Stopped),
        ] {
            assert_eq!(Status::of(&outcome), status);
        }
    }

    #[test]
    fn the_fix_comes_last() {
        let error = anyhow!("no room").context("cannot write a; free some space").context("training failed");
        insta::assert_snapshot!(render(&error, Status::Failed), @r"
        error: training failed
          because cannot write a; free some space
          because no room
        ");
        let error = anyhow!("no room").context("cannot write a; free some space");
        insta::assert_snapshot!(render(&error, Status::Failed), @r"
        error: cannot write a
          because no room
        fix: free some space
        ");
        insta::assert_snapshot!(render(&anyhow!("no a; make one"), Status::Failed), @"error: no a; make one");
    }

    #[test]
    fn a_panic_is_a_bug() {
        assert_eq!(guarded(|| panic!("seven")), Status::Failed);
        assert!(bug(&"seven").contains("this is a bug in oss-run"));
    }
}
