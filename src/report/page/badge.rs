//! How a run or a trial stands: the word of the command line, and a colour.

use maud::{Markup, html};

use crate::sweep::TrialStatus;
use oss_runs::run_dir::RunStatus;

/// How a run, or one of its stages, stands.
pub fn run(status: RunStatus) -> Markup {
    badge(colour(status), status.word())
}

/// How a trial stands.
pub fn trial(status: TrialStatus) -> Markup {
    let class = match status {
        TrialStatus::Run(status) => colour(status),
        TrialStatus::Paused => "stopped",
        TrialStatus::Waiting => "waiting",
    };
    badge(class, status.word())
}

fn colour(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Done => "done",
        RunStatus::Stopped | RunStatus::Interrupted => "stopped",
        RunStatus::Failed | RunStatus::Damaged => "failed",
        RunStatus::Running => "open",
        RunStatus::Untrained => "waiting",
    }
}

fn badge(class: &str, word: &str) -> Markup {
    html! { span class={ "state " (class) } { (word) } }
}
