//! The status of a run, in one word: the same word wherever a run is shown.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Exit, Manifest, ManifestError, RunDir, Segment, Stage, StageRecord, StageState, TARGET_STEPS};

/// The status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// The run is being written.
    Running,
    /// Trained to its last step, without a failure since.
    Done,
    /// Stopped by request before its last step, or the number of steps was raised since; it can be resumed.
    Stopped,
    /// Ended by an error.
    Failed,
    /// Its process died without a report: it was killed, or the machine went down. It can be resumed.
    Interrupted,
    /// Ended without an error, but has not trained yet.
    Untrained,
    /// Its manifest cannot be read.
    Damaged,
}

impl RunStatus {
    /// The status in one word, as on the command line and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Untrained => "untrained",
            Self::Damaged => "damaged",
        }
    }

    /// The status of `run`, whose manifest has just been loaded; damaged if it cannot be read.
    ///
    /// A run that ends after that has released its lock although `manifest` still says that it is being written. It wrote
    /// how it ended before it released the lock, so the manifest is read once more.
    pub fn of(run: &RunDir, manifest: Option<&Manifest>) -> Self {
        let Some(manifest) = manifest else {
            return if run.in_use() { Self::Running } else { Self::Damaged };
        };
        match Self::of_idle(manifest) {
            _ if run.in_use() => Self::Running,
            Self::Interrupted => Manifest::load(run).map_or(Self::Damaged, |latest| Self::of_idle(&latest)),
            status => status,
        }
    }

    /// The status of `run`, or `None` if it was never started.
    pub fn read(run: &RunDir) -> Option<Self> {
        match Manifest::load(run) {
            Err(ManifestError::Missing { .. }) => None,
            read => Some(Self::of(run, read.as_ref().ok())),
        }
    }

    /// The status of a run that is not being written.
    fn of_idle(manifest: &Manifest) -> Self {
        match manifest.segments.last().map(|start| &start.exit) {
            Some(None) => Self::Interrupted,
            Some(Some(Exit::Stopped)) => Self::Stopped,
            Some(Some(Exit::Failed(_))) => Self::Failed,
            Some(Some(Exit::Done)) | None => {
                // The last attempt may have ended normally before it got to training.
                match manifest.stages.get(Stage::Train.name()) {
                    None => Self::Untrained,
                    Some(training) if is_short(manifest, training) => Self::Stopped,
                    Some(training) => training.state.status(false),
                }
            }
        }
    }
}

/// Whether training was complete, and its last step has been raised since.
fn is_short(manifest: &Manifest, training: &StageRecord) -> bool {
    let asked = manifest.experiment.pointer("/train/steps").and_then(Value::as_u64);
    // Records of earlier versions have only the step.
    let before = training.outputs.get(TARGET_STEPS).or_else(|| training.outputs.get("step"));
    let was_asked = before.and_then(Value::as_u64);
    training.state == StageState::Done && was_asked.zip(asked).is_some_and(|(before, now)| before < now)
}

impl StageState {
    /// The status of the stage; a stage that should be running, in a run that is not, was interrupted.
    pub fn status(self, is_running: bool) -> RunStatus {
        match self {
            Self::Running if is_running => RunStatus::Running,
            Self::Running => RunStatus::Interrupted,
            Self::Done => RunStatus::Done,
            Self::Stopped => RunStatus::Stopped,
            Self::Failed => RunStatus::Failed,
        }
    }
}

impl Segment {
    /// How the attempt ended, in words; `is_running` is whether it is still running.
    pub fn ended(&self, is_running: bool) -> String {
        match &self.exit {
            Some(exit) => exit.to_string(),
            None if is_running => RunStatus::Running.word().to_owned(),
            None => RunStatus::Interrupted.word().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;

    use super::*;

    fn manifest(exit: Option<Exit>, training: Option<(StageState, u64)>) -> Manifest {
        let mut manifest = Manifest::new("aa", "tiny", json!({"train": {"steps": 6}}));
        manifest.segments.push(Segment { exit, ..Segment::default() });
        if let Some((state, step)) = training {
            let record = StageRecord {
                state,
                key: String::new(),
                version: 1,
                values: Default::default(),
                inputs: Default::default(),
                outputs: [(TARGET_STEPS.to_owned(), json!(step))].into(),
                started: Utc::now(),
                finished: None,
                reason: None,
            };
            manifest.stages.insert(Stage::Train.name().to_owned(), record);
        }
        manifest
    }

    #[test]
    fn the_last_start_decides_and_training_if_that_ended_well() {
        let failed = || Some(Exit::Failed("no room".into()));
        let trained = Some((StageState::Done, 6));
        for (exit, training, expected) in [
            (Some(Exit::Done), trained, RunStatus::Done),
            (Some(Exit::Done), None, RunStatus::Untrained),
            (Some(Exit::Done), Some((StageState::Done, 4)), RunStatus::Stopped),
            (Some(Exit::Done), Some((StageState::Stopped, 4)), RunStatus::Stopped),
            (Some(Exit::Done), Some((StageState::Failed, 4)), RunStatus::Failed),
            (Some(Exit::Done), Some((StageState::Running, 4)), RunStatus::Interrupted),
            (Some(Exit::Stopped), trained, RunStatus::Stopped),
            (failed(), trained, RunStatus::Failed),
            (None, trained, RunStatus::Interrupted),
            (None, None, RunStatus::Interrupted),
        ] {
            let manifest = manifest(exit.clone(), training);
            assert_eq!(RunStatus::of_idle(&manifest), expected, "{exit:?}, {training:?}");
        }
        let unstarted = Manifest { segments: Vec::new(), ..manifest(None, None) };
        assert_eq!(RunStatus::of_idle(&unstarted), RunStatus::Untrained);
    }

    #[test]
    fn a_run_that_ends_during_the_check_is_reported_as_ended() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        let running = manifest(None, None);
        manifest(Some(Exit::Done), Some((StageState::Done, 6))).save(&run).unwrap();
        assert_eq!(RunStatus::of(&run, Some(&running)), RunStatus::Done);
        running.save(&run).unwrap();
        assert_eq!(RunStatus::of(&run, Some(&running)), RunStatus::Interrupted);
    }

    #[test]
    fn a_word_is_the_same_in_json_and_on_the_command_line() {
        use clap::ValueEnum;
        for status in RunStatus::value_variants() {
            assert_eq!(json!(status), status.word());
            assert_eq!(status.to_possible_value().unwrap().get_name(), status.word());
        }
    }
}
