//! `manifest.json`: what a run is and what happened to it.
//!
//! The file is indented JSON whose last member, `digest`, is the BLAKE3 hash of every byte before that member. The
//! digest covers bytes rather than values, so that rounding by a parser cannot make a good file look damaged.

use oss_config::error::{ErrorReport, UserError, user_errors};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Stage;
use super::atomic::write_atomic;
use super::{Environment, RunDir};

/// The format that this program writes; raised when an older program could misread a newer file.
pub const FORMAT: u32 = 1;

/// What a run is and what happened to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// Run ID: the first 10 hex digits of the training fingerprint, with `-2`, `-3`... for deliberate copies.
    pub id: String,
    /// Name of the experiment.
    pub name: String,
    /// When the run was first started.
    pub created: DateTime<Utc>,
    /// Absolute path of the experiment file it was started from, which may have changed or been deleted since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The resolved experiment.
    pub experiment: Value,
    /// Where each of its values came from: key to layer.
    pub layers: BTreeMap<String, String>,
    /// Its inputs by content: sources, tokenizer, initial weights.
    pub inputs: Value,
    /// Keys of the run's components: name (`trajectory`, `target`, `tokens`) to key.
    pub keys: BTreeMap<String, String>,
    /// What happened to each stage, by name.
    pub stages: BTreeMap<String, StageRecord>,
    /// Every attempt to run it, oldest first.
    pub segments: Vec<Segment>,
}

/// The state of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// Started; also what a killed process leaves behind.
    Running,
    /// Its outputs are complete.
    Done,
    /// Stopped by request; it can be resumed.
    Stopped,
    /// Ended by an error.
    Failed,
}

/// Output of the train stage: the number of steps that it was to take; early stopping takes fewer.
pub const TARGET_STEPS: &str = "target_steps";

/// Output of the train stage: the number of steps without an update.
pub const SKIPPED_STEPS: &str = "skipped_steps";

/// The last execution of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The state of the stage.
    pub state: StageState,
    /// The key it ran with.
    pub key: String,
    /// The version of the stage that ran.
    pub version: u32,
    /// Values that are part of its key: those that differed from the defaults, by their path in the experiment file.
    pub values: BTreeMap<String, Value>,
    /// Its inputs: name to digest.
    pub inputs: BTreeMap<String, String>,
    /// Its outputs: name to digest, number or path.
    pub outputs: BTreeMap<String, Value>,
    /// When it started.
    pub started: DateTime<Utc>,
    /// When it ended, for whatever reason.
    pub finished: Option<DateTime<Utc>>,
    /// Why it ran (what made it stale) or, after a failure, why it failed.
    pub reason: Option<String>,
}

/// One attempt to run the experiment, in one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Program, machine and git state.
    #[serde(flatten)]
    pub environment: Environment,
    /// Version of libtorch.
    pub libtorch: String,
    /// The device of rank 0, such as `cpu` or `Cuda(0)`.
    pub devices: Vec<String>,
    /// Number of ranks.
    pub ranks: u64,
    /// Threads per rank.
    pub threads: u64,
    /// When it started.
    pub started: DateTime<Utc>,
    /// When it ended; `None` while it is running, or if it was killed.
    pub finished: Option<DateTime<Utc>>,
    /// How it ended; `None` while it is running, or if it was killed.
    pub exit: Option<Exit>,
    /// The error, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// How an attempt ended. In the manifest: `done`, `stopped`, or the first line of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Exit {
    /// Every requested stage is done.
    Done,
    /// It was stopped by request.
    Stopped,
    /// It failed with an error, of which this is the first line.
    Failed(String),
}

const DONE: &str = "done";
const STOPPED: &str = "stopped";

impl From<String> for Exit {
    fn from(text: String) -> Self {
        match text.as_str() {
            DONE => Self::Done,
            STOPPED => Self::Stopped,
            _ => Self::Failed(text),
        }
    }
}

impl From<Exit> for String {
    fn from(exit: Exit) -> Self {
        exit.to_string()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => DONE,
            Self::Stopped => STOPPED,
            Self::Failed(error) => error,
        })
    }
}

/// Why a manifest cannot be used.
#[derive(Debug)]
pub enum ManifestError {
    /// There is no manifest.
    Missing {
        /// The directory.
        run: PathBuf,
    },
    /// Its bytes are not those that were written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The previous version, if it is good.
        previous: Option<PathBuf>,
    },
    /// It was written by a newer program.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// It cannot be read or written.
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<ManifestError> for UserError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Missing { run } => {
                Self::failed(format!("{} is not a run directory (it has no manifest.json)", run.display()))
                    .hint("give a directory of the form <name>/<run id>")
            }
            ManifestError::Damaged { path, what, previous } => {
                Self::failed(format!("{} is damaged ({what})", path.display())).hint(match previous {
                    Some(previous) => {
                        format!("the previous version is good: copy {} over it", previous.display())
                    }
                    None => "start a new run with --new (existing files are not touched)".into(),
                })
            }
            ManifestError::Newer { path, format } => Self::failed(format!(
                "{} has format {format}, but this program supports formats up to {FORMAT}",
                path.display()
            ))
            .hint("upgrade oss-run"),
            ManifestError::Io { action, path, source } => {
                Self::failed(format!("cannot {action} {}", path.display()))
                    .hint("check free disk space and permissions")
                    .because(source)
            }
        }
    }
}

user_errors!(ManifestError);

/// What separates the digested bytes from the digest, and what follows it.
const DIGEST_OPEN: &str = ",\n  \"digest\": \"";
const DIGEST_CLOSE: &str = "\"\n}\n";

impl Manifest {
    /// The manifest of a run that starts now.
    pub fn new(id: impl Into<String>, name: impl Into<String>, experiment: Value) -> Self {
        Self {
            format: FORMAT,
            id: id.into(),
            name: name.into(),
            created: Utc::now(),
            file: None,
            experiment,
            layers: BTreeMap::new(),
            inputs: Value::Null,
            keys: BTreeMap::new(),
            stages: BTreeMap::new(),
            segments: Vec::new(),
        }
    }

    /// Loads the manifest of `run` and checks its digest.
    ///
    /// # Errors
    /// If it is missing, damaged, too new or unreadable; each error names the file.
    pub fn load(run: &RunDir) -> Result<Self, ManifestError> {
        let path = run.manifest();
        match fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes, &path).map_err(|mut error| {
                if let ManifestError::Damaged { previous, .. } = &mut error {
                    *previous = Self::good_previous(run);
                }
                error
            }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(ManifestError::Missing { run: run.root().to_owned() })
            }
            Err(source) => Err(ManifestError::Io { action: "read", path, source }),
        }
    }

    /// Replaces the manifest of `run` atomically: a crash leaves the previous one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, run: &RunDir) -> Result<(), ManifestError> {
        let path = run.manifest();
        let replace = |path: &Path, bytes: &[u8]| {
            write_atomic(path, |out| out.write_all(bytes)).map_err(|source| ManifestError::Io {
                action: "write",
                path: path.to_owned(),
                source,
            })
        };
        if let Ok(bytes) = fs::read(&path)
            && Self::parse(&bytes, &path).is_ok()
        {
            replace(&run.previous_manifest(), &bytes)?;
        }
        replace(&path, self.to_text().as_bytes())
    }

    /// When the run was last started.
    pub fn last_started(&self) -> DateTime<Utc> {
        self.segments.last().map_or(self.created, |segment| segment.started)
    }

    /// Total running time of all attempts; the running time of a killed attempt is unknown and not counted.
    pub fn running_time(&self) -> TimeDelta {
        self.segments.iter().filter_map(|start| Some(start.finished? - start.started)).sum()
    }

    /// Steps without an update because the loss or the gradient was not finite, once training is complete.
    pub fn skipped_steps(&self) -> u64 {
        let train = self.stages.get(Stage::Train.name());
        train.and_then(|train| train.outputs.get(SKIPPED_STEPS)?.as_u64()).unwrap_or(0)
    }

    /// The previous version of the manifest, if it is usable.
    fn good_previous(run: &RunDir) -> Option<PathBuf> {
        let path = run.previous_manifest();
        Self::parse(&fs::read(&path).ok()?, &path).ok().map(|_| path)
    }

    fn to_text(&self) -> String {
        // Maps with string keys, numbers and strings can all be represented in JSON.
        let mut text = serde_json::to_string_pretty(self).expect("a manifest is JSON");
        // Reopen the object: the digest is its last member.
        let body = text.len() - "\n}".len();
        text.truncate(body);
        let digest = blake3::hash(text.as_bytes());
        text.push_str(DIGEST_OPEN);
        text.push_str(&digest.to_hex());
        text.push_str(DIGEST_CLOSE);
        text
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, ManifestError> {
        let damaged = |what: String| ManifestError::Damaged { path: path.to_owned(), what, previous: None };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text".into()))?;
        // The format comes first: another format may store its digest elsewhere.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        if let Ok(Head { format }) = serde_json::from_str(text)
            && format > FORMAT
        {
            return Err(ManifestError::Newer { path: path.to_owned(), format });
        }
        let (body, digest) = text
            .strip_suffix(DIGEST_CLOSE)
            .and_then(|text| text.rsplit_once(DIGEST_OPEN))
            .ok_or_else(|| damaged("its end is missing".into()))?;
        if blake3::hash(body.as_bytes()).to_hex().as_str() != digest {
            return Err(damaged("its content does not match its digest".into()));
        }
        serde_json::from_str(text).map_err(|error| damaged(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn sample() -> Manifest {
        let mut manifest = Manifest::new(
            "0123456789",
            "tiny",
            json!({"optimizer": {"lr": 0.1 + 0.2, "betas": [0.9, 0.95]}}),
        );
        manifest.layers.insert("optimizer.lr".into(), "--set".into());
        manifest.keys.insert("trajectory".into(), "0123456789abcdef".into());
        manifest.stages.insert(
            "prepare".into(),
            StageRecord {
                state: StageState::Done,
                key: "k".into(),
                version: 1,
                values: BTreeMap::from([("a.b".into(), json!(2))]),
                inputs: BTreeMap::from([("a.txt".into(), "d1".into())]),
                outputs: BTreeMap::from([("tokens".into(), json!(12))]),
                started: Utc::now(),
                finished: Some(Utc::now()),
                reason: Some("never ran".into()),
            },
        );
        manifest.segments.push(Segment { ranks: 1, threads: 2, started: Utc::now(), ..Segment::default() });
        manifest
    }

    fn run() -> (tempfile::TempDir, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        (dir, run)
    }

    #[test]
    fn round_trips() {
        let (_dir, run) = run();
        let manifest = sample();
        manifest.save(&run).unwrap();
        let loaded = Manifest::load(&run).unwrap();
        assert_eq!(loaded, manifest);
        let first = fs::read(run.manifest()).unwrap();
        loaded.save(&run).unwrap();
        assert_eq!(fs::read(run.manifest()).unwrap(), first);
        let value: Value = serde_json::from_slice(&first).unwrap();
        assert_eq!(value["segments"][0]["threads"], 2);
        assert_eq!(value["digest"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn an_exit_is_stored_as_text() {
        let (_dir, run) = run();
        let failed = || Exit::Failed("train failed: no room".into());
        for (exit, text) in [
            (Some(Exit::Done), json!("done")),
            (Some(Exit::Stopped), json!("stopped")),
            (Some(failed()), json!("train failed: no room")),
            (None, Value::Null),
        ] {
            let mut manifest = sample();
            manifest.segments[0].exit.clone_from(&exit);
            manifest.save(&run).unwrap();
            let value: Value = serde_json::from_slice(&fs::read(run.manifest()).unwrap()).unwrap();
            assert_eq!(value["segments"][0]["exit"], text);
            assert_eq!(Manifest::load(&run).unwrap().segments[0].exit, exit);
        }
    }

    #[test]
    fn a_missing_manifest_is_reported() {
        let (_dir, run) = run();
        let error = Manifest::load(&run).unwrap_err();
        assert!(matches!(error, ManifestError::Missing { .. }));
        assert!(ErrorReport::of(error).message.contains("not a run directory"));
    }

    #[test]
    fn a_newer_format_asks_for_a_newer_program() {
        let (_dir, run) = run();
        fs::write(run.manifest(), r#"{"format": 99, "anything": []}"#).unwrap();
        let error = Manifest::load(&run).unwrap_err();
        assert!(matches!(error, ManifestError::Newer { format: 99, .. }));
        assert_eq!(ErrorReport::of(error).hints, ["upgrade oss-run"]);
    }

    #[test]
    fn a_manual_edit_is_detected() {
        let (_dir, run) = run();
        sample().save(&run).unwrap();
        let text = fs::read_to_string(run.manifest()).unwrap();
        fs::write(run.manifest(), text.replace("\"tiny\"", "\"huge\"")).unwrap();
        let error = ErrorReport::of(Manifest::load(&run).unwrap_err()).to_string();
        assert!(
            error.contains("manifest.json is damaged (its content does not match its digest)"),
            "{error}"
        );
        assert!(error.ends_with("with --new (existing files are not touched)"), "{error}");
    }

    #[test]
    fn a_damaged_manifest_suggests_the_previous_one() {
        let (_dir, run) = run();
        let first = sample();
        first.save(&run).unwrap();
        Manifest { name: "second".into(), ..first.clone() }.save(&run).unwrap();
        fs::write(run.manifest(), "{").unwrap();
        let error = ErrorReport::of(Manifest::load(&run).unwrap_err()).to_string();
        assert!(error.ends_with("manifest.previous.json over it"), "{error}");
        // A damaged manifest never replaces the good previous version.
        first.save(&run).unwrap();
        fs::copy(run.previous_manifest(), run.manifest()).unwrap();
        assert_eq!(Manifest::load(&run).unwrap(), first);
    }

    proptest! {
        #[test]
        fn any_changed_byte_or_lost_tail_is_detected(place in 0.0..1.0f64, flip in 1u8..=255, cut in any::<bool>()) {
            let mut bytes = sample().to_text().into_bytes();
            let at = (place * bytes.len() as f64) as usize;
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            // A flipped bit may turn the format into a newer one; either way, nothing is accepted.
            prop_assert!(Manifest::parse(&bytes, Path::new("manifest.json")).is_err());
        }
    }
}
