//! State badges of runs and trials: the same word as on the command line, with a color.

use maud::{Markup, html};

use crate::sweep::TrialStatus;
use oss_runs::run_dir::RunStatus;

/// The state of a run or one of its stages.
pub fn run(status: RunStatus) -> Markup {
    badge(color(status), status.word())
}

/// The state of a trial.
pub fn trial(status: TrialStatus) -> Markup {
    let class = match status {
        TrialStatus::Run(status) => color(status),
        TrialStatus::Paused => "stopped",
        TrialStatus::Waiting => "waiting",
    };
    badge(class, status.word())
}

fn color(status: RunStatus) -> &'static str {
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
