//! How the program exits: the status code and the final error message.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use anyhow::{Error, Result};
use console::Term;

use oss_config::ExperimentErrors;
use oss_config::error::{ErrorReport, Status, UserError};
use oss_runs::monitor::{colored, colors_enabled};
use oss_runs::run_dir::redact;

/// The ranks ended with this status, and rank 0 has already printed why.
#[derive(Debug, thiserror::Error)]
#[error("rank 0 has reported the error")]
pub struct AlreadyReported(pub Status);

/// Runs `work`, reports any error on stderr, and returns the exit status. A panic is reported as a bug.
pub fn guarded(work: impl FnOnce() -> Result<()>) -> Status {
    let outcome = panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(bug(payload.as_ref()).into()));
    let Err(error) = outcome else { return Status::Done };
    if let Some(AlreadyReported(status)) = error.downcast_ref() {
        return *status;
    }
    let words = redact(&render(&error));
    eprintln!("{}", colored(&words));
    // Log it as well: with several ranks, only one prints to the terminal.
    tracing::debug!("{words}");
    Status::of(&error)
}

fn bug(payload: &(dyn Any + Send)) -> UserError {
    let what = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    UserError::failed(format!("this is a bug in oss-run {}: {what}", env!("CARGO_PKG_VERSION"))).hint(
        "run `oss-run resume last` to continue from the last checkpoint, and report the \
         lines above together with the experiment file",
    )
}

fn render(error: &Error) -> String {
    if let Some(problems) = experiment_errors(error) {
        return problems.render(colors_enabled(), width());
    }
    let report = ErrorReport::from(error);
    match Status::of(error) {
        // Where it stopped is in the context above the stop request itself.
        Status::Stopped => ErrorReport { causes: Vec::new(), ..report }.to_string(),
        _ => format!("error: {report}"),
    }
}

/// The width of the terminal, as far as lines of text are comfortable to read.
fn width() -> usize {
    let columns = Some(Term::stderr()).filter(Term::is_term).and_then(|term| term.size_checked());
    columns.map_or(usize::MAX, |(_, columns)| usize::from(columns)).min(110)
}

fn experiment_errors(error: &Error) -> Option<&ExperimentErrors> {
    error.chain().find_map(|cause| cause.downcast_ref::<UserError>()?.message_as())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;
    use oss_config::error::{Hint, Stopped};

    #[test]
    fn a_failure_ends_with_its_hint() {
        let error =
            anyhow!("no room").context("cannot write a").hint("free some space").context("training failed");
        insta::assert_snapshot!(render(&error), @r"
        error: training failed
          caused by: cannot write a
          caused by: no room
        hint: free some space
        ");
    }

    #[test]
    fn a_stop_is_not_an_error() {
        let error = anyhow!(Stopped).context("stopped at step 3 of 8").hint("resume with `oss-run resume a`");
        insta::assert_snapshot!(render(&error), @r"
        stopped at step 3 of 8
        hint: resume with `oss-run resume a`
        ");
    }

    #[test]
    fn the_status_follows_the_error() {
        assert_eq!(guarded(|| Ok(())), Status::Done);
        assert_eq!(guarded(|| Err(UserError::wrong("x")).context("above")), Status::Wrong);
        assert_eq!(guarded(|| Err(AlreadyReported(Status::Stopped).into())), Status::Stopped);
    }

    #[test]
    fn a_panic_is_a_bug() {
        assert_eq!(guarded(|| panic!("seven")), Status::Failed);
        assert!(bug(&"seven").to_string().contains("this is a bug in oss-run"));
    }
}
