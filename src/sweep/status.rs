//! The state of a trial: that of its run, combined with what the sweep knows.

use serde::de::IntoDeserializer;
use serde::de::value::Error;
use serde::{Deserialize, Serialize};

use oss_runs::run_dir::RunStatus;

/// The state of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrialStatus {
    /// The state of its run from the sweep's point of view: done if all requested stages are done, stopped if ended by
    /// successive halving.
    Run(RunStatus),
    /// Its run was stopped and will be resumed.
    Paused,
    /// Its run has never been started.
    Waiting,
}

/// What a sweep knows about a trial in addition to its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The ledger records a failure.
    pub failed: bool,
    /// Successive halving has ended it.
    pub ended: bool,
    /// All stages requested by the sweep are done.
    pub finished: bool,
    /// A process is working on it.
    pub claimed: bool,
}

impl TrialStatus {
    /// All stages requested by the sweep are done.
    pub const DONE: Self = Self::Run(RunStatus::Done);
    /// A process is working on it.
    pub const RUNNING: Self = Self::Run(RunStatus::Running);
    /// Successive halving has ended it.
    pub const STOPPED: Self = Self::Run(RunStatus::Stopped);
    /// It failed.
    pub const FAILED: Self = Self::Run(RunStatus::Failed);

    /// All states, finished ones first.
    pub const ALL: [Self; 9] = [
        Self::DONE,
        Self::STOPPED,
        Self::FAILED,
        Self::Run(RunStatus::Damaged),
        Self::Run(RunStatus::Interrupted),
        Self::RUNNING,
        Self::Paused,
        Self::Run(RunStatus::Untrained),
        Self::Waiting,
    ];

    /// The state of a trial, given that of its run; `None` if the run was never started.
    pub fn of(run: Option<RunStatus>, known: Known) -> Self {
        match run {
            _ if known.failed => Self::FAILED,
            _ if known.ended => Self::STOPPED,
            _ if known.finished => Self::DONE,
            _ if known.claimed => Self::RUNNING,
            None => Self::Waiting,
            Some(RunStatus::Stopped | RunStatus::Done) => Self::Paused,
            Some(other) => Self::Run(other),
        }
    }

    /// One word, as in `results.jsonl`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Run(status) => status.word(),
            Self::Paused => "paused",
            Self::Waiting => "waiting",
        }
    }
}

impl TryFrom<String> for TrialStatus {
    type Error = Error;

    fn try_from(word: String) -> Result<Self, Error> {
        match [Self::Paused, Self::Waiting].into_iter().find(|status| status.word() == word) {
            Some(own) => Ok(own),
            None => RunStatus::deserialize(word.into_deserializer()).map(Self::Run),
        }
    }
}

impl From<TrialStatus> for String {
    fn from(status: TrialStatus) -> Self {
        status.word().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_round_trips_and_others_are_rejected() {
        for status in TrialStatus::ALL {
            let text = serde_json::to_string(&status).unwrap();
            assert_eq!(text, format!("\"{}\"", status.word()));
            assert_eq!(serde_json::from_str::<TrialStatus>(&text).unwrap(), status);
        }
        let error = serde_json::from_str::<TrialStatus>("\"odd\"").unwrap_err().to_string();
        assert!(error.contains("odd") && error.contains("running"), "{error}");
    }
}
