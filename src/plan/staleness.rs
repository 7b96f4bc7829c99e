//! Why a stage has to run.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::keys::{KeyInputs, default_values};
use oss_runs::run_dir::Stage;
use oss_runs::run_dir::{StageRecord, StageState};

/// Whether a stage has to run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Freshness {
    /// Its outputs are up to date.
    Fresh {
        /// A note for the user, although nothing has to run.
        note: Option<String>,
    },
    /// It has to run.
    Stale {
        /// The reason.
        #[serde(serialize_with = "as_text")]
        reason: Reason,
    },
}

/// Why a stage has to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It never ran.
    NeverRan,
    /// It was forced on the command line.
    Forced,
    /// It did not finish.
    Unfinished {
        /// How it ended.
        state: StageState,
        /// How far it got, such as `step 40 of 100`.
        progress: Option<String>,
    },
    /// The number of steps was raised.
    StepsRaised {
        /// The old number of steps.
        old: u64,
        /// The new number of steps.
        new: u64,
    },
    /// Values of the experiment changed.
    Values(Vec<Change>),
    /// The content of these inputs changed.
    Inputs(Vec<String>),
    /// The program now produces different outputs from the same values and inputs.
    VersionRaised {
        /// The version that ran.
        old: u32,
        /// This program's version.
        new: u32,
    },
    /// The final checkpoint is missing.
    CheckpointMissing(u64),
    /// An output is missing.
    OutputMissing(PathBuf),
    /// An output differs from what was written.
    OutputDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It depends on an earlier stage that has to run.
    After(Stage),
}

/// A changed value.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Path in the experiment file.
    pub key: String,
    /// The old value; `None` if it was unset.
    pub old: Option<Value>,
    /// The new value; `None` if it is unset.
    pub new: Option<Value>,
}

impl Reason {
    /// Why a stage with this `record` has to run to produce `wanted`; `None` if it is up to date.
    pub fn find(record: Option<&StageRecord>, wanted: &KeyInputs) -> Option<Self> {
        let Some(record) = record else { return Some(Self::NeverRan) };
        if record.state != StageState::Done {
            return Some(Self::Unfinished { state: record.state, progress: None });
        }
        if record.key == wanted.key().0 {
            return None;
        }
        let changes = changes(record, wanted);
        let steps = |value: &Option<Value>| value.as_ref().and_then(Value::as_u64);
        Some(match changes.as_slice() {
            [Change { key, old, new }] if key == "train.steps" && steps(old) < steps(new) => {
                Self::StepsRaised { old: steps(old).unwrap_or(0), new: steps(new).unwrap_or(0) }
            }
            [] => match changed_inputs(record, wanted) {
                inputs if inputs.is_empty() => {
                    Self::VersionRaised { old: record.version, new: wanted.version }
                }
                inputs => Self::Inputs(inputs),
            },
            _ => Self::Values(changes),
        })
    }
}

fn changes(record: &StageRecord, wanted: &KeyInputs) -> Vec<Change> {
    let value = |values: &std::collections::BTreeMap<String, Value>, key: &String| {
        values.get(key).or_else(|| default_values().get(key)).cloned()
    };
    let mut keys: Vec<&String> = record.values.keys().chain(wanted.values.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| record.values.get(*key) != wanted.values.get(*key))
        .map(|key| Change {
            key: key.clone(),
            old: value(&record.values, key),
            new: value(&wanted.values, key),
        })
        .collect()
}

fn changed_inputs(record: &StageRecord, wanted: &KeyInputs) -> Vec<String> {
    let mut names: Vec<String> = wanted
        .digests
        .iter()
        .filter(|(name, digest)| record.inputs.get(*name) != Some(digest))
        .map(|(name, _)| name.clone())
        .collect();
    names.extend(record.inputs.keys().filter(|name| !wanted.digests.contains_key(*name)).cloned());
    names
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh { note: None } => f.write_str("fresh"),
            Self::Fresh { note: Some(note) } => write!(f, "fresh ({note})"),
            Self::Stale { reason } => write!(f, "stale: {reason}"),
        }
    }
}

/// Serializes a reason as a human-readable line.
fn as_text<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("never ran"),
            Self::Forced => f.write_str("forced"),
            Self::Unfinished { state, progress } => {
                f.write_str(state.status(false).word())?;
                progress.as_ref().map_or(Ok(()), |progress| write!(f, " at {progress}"))
            }
            Self::StepsRaised { old, new } => write!(f, "train.steps raised {old} -> {new}"),
            Self::Values(changes) => join(f, changes),
            Self::Inputs(names) => write!(f, "{} changed", names.join(", ")),
            Self::VersionRaised { old, new } => write!(f, "stage version raised {old} -> {new}"),
            Self::CheckpointMissing(step) => write!(f, "checkpoint of step {step} is missing"),
            Self::OutputMissing(path) => write!(f, "{} is missing", path.display()),
            Self::OutputDamaged { path, what } => write!(f, "{} is damaged ({what})", path.display()),
            Self::After(stage) => write!(f, "depends on {stage}"),
        }
    }
}

/// Number of changes shown in full; the rest are counted.
const SHOWN_CHANGES: usize = 3;

fn join(f: &mut fmt::Formatter<'_>, changes: &[Change]) -> fmt::Result {
    for (index, change) in changes.iter().take(SHOWN_CHANGES).enumerate() {
        write!(f, "{}{change}", if index == 0 { "" } else { ", " })?;
    }
    match changes.len().checked_sub(SHOWN_CHANGES) {
        Some(more) if more > 0 => write!(f, " and {more} more"),
        _ => Ok(()),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changed {} -> {}", self.key, short(self.old.as_ref()), short(self.new.as_ref()))
    }
}

/// Maximum characters per value.
const SHOWN_CHARACTERS: usize = 40;

fn short(value: Option<&Value>) -> String {
    let text = match value {
        None => return "unset".to_owned(),
        Some(Value::String(text)) => text.replace(char::is_control, " "),
        Some(other) => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::plan::keys;
    use oss_config::{Experiment, ExportDtype, Schedule, ScheduleKind};

    fn done(inputs: &KeyInputs) -> StageRecord {
        StageRecord {
            state: StageState::Done,
            key: inputs.key().0,
            version: inputs.version,
            values: inputs.values.clone(),
            inputs: inputs.digests.clone(),
            outputs: Default::default(),
            started: Utc::now(),
            finished: None,
            reason: None,
        }
    }

    fn line(before: &KeyInputs, now: &KeyInputs) -> String {
        Reason::find(Some(&done(before)), now).unwrap().to_string()
    }

    #[test]
    fn the_same_key_is_fresh() {
        let inputs = keys::sample(&Experiment::default(), "w");
        assert_eq!(Reason::find(Some(&done(&inputs)), &inputs), None);
        assert_eq!(Reason::find(None, &inputs), Some(Reason::NeverRan));
    }

    #[test]
    fn each_reason_is_one_line() {
        let mut experiment = Experiment::default();
        let export = keys::export(&experiment, "w", "t");
        experiment.export.dtype = ExportDtype::F32;
        insta::assert_snapshot!(line(&export, &keys::export(&experiment, "w", "t")), @"export.dtype changed bf16 -> f32");
        insta::assert_snapshot!(line(&keys::export(&experiment, "w", "t"), &export), @"export.dtype changed f32 -> bf16");
        insta::assert_snapshot!(line(&export, &keys::export(&Experiment::default(), "v", "u")), @"tokenizer, weights changed");

        let sample = keys::sample(&experiment, "w");
        experiment.sample.prompts = vec!["Once there was a small\nfox who lived under a hill".into()];
        experiment.sample.top_k = Some(40);
        experiment.sample.seed = 1;
        experiment.sample.temperature = 0.5;
        insta::assert_snapshot!(line(&sample, &keys::sample(&experiment, "w")), @r#"sample.prompts changed ["Once upon a time"] -> ["Once there was a small\nfox who lived ..., sample.seed changed 0 -> 1, sample.temperature changed 0.8 -> 0.5 and 1 more"#);
        experiment = Experiment::default();
        experiment.sample.top_k = Some(40);
        insta::assert_snapshot!(line(&sample, &keys::sample(&experiment, "w")), @"sample.top_k changed unset -> 40");

        let mut raised = sample.clone();
        raised.version += 1;
        insta::assert_snapshot!(line(&sample, &raised), @"stage version raised 1 -> 2");
    }

    #[test]
    fn raised_steps_have_their_own_reason() {
        let schedule = Schedule { kind: ScheduleKind::Constant, ..Schedule::default() };
        let mut experiment = Experiment { schedule, ..Experiment::default() };
        let source =
            keys::prepare(&experiment, experiment.dataset.source_text_keys("main"), "text", "bytes", false);
        let target = |experiment: &Experiment| {
            let trajectory = keys::trajectory(experiment, &[(1.0, &source)], None, 257);
            keys::target(experiment, &trajectory)
        };
        let before = target(&experiment);
        experiment.train.steps = 2000;
        insta::assert_snapshot!(line(&before, &target(&experiment)), @"train.steps raised 1000 -> 2000");
    }

    #[test]
    fn an_unfinished_stage_says_how_it_ended() {
        let inputs = keys::sample(&Experiment::default(), "w");
        let mut record = done(&inputs);
        let mut lines = Vec::new();
        for state in [StageState::Running, StageState::Stopped, StageState::Failed] {
            record.state = state;
            lines.push(Reason::find(Some(&record), &inputs).unwrap().to_string());
        }
        let progress = Some("step 40 of 100".to_owned());
        lines.push(Reason::Unfinished { state: StageState::Stopped, progress }.to_string());
        insta::assert_snapshot!(lines.join("\n"), @r"
        interrupted
        stopped
        failed
        stopped at step 40 of 100
        ");
    }

    #[test]
    fn missing_damaged_and_dependent_outputs() {
        let lines = [
            Reason::Forced,
            Reason::OutputMissing("runs/a/b/export".into()),
            Reason::OutputDamaged {
                path: "runs/a/b/export/model.safetensors".into(),
                what: "3 bytes short".into(),
            },
            Reason::After(Stage::Train),
        ]
        .map(|reason| Freshness::Stale { reason }.to_string())
        .join("\n");
        insta::assert_snapshot!(lines, @r"
        stale: forced
        stale: runs/a/b/export is missing
        stale: runs/a/b/export/model.safetensors is damaged (3 bytes short)
        stale: depends on train
        ");
    }
}
