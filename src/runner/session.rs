//! One start of a run: the lock, the manifest, and the segment that records when and where it ran.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use chrono::Utc;
use serde_json::Value;
use tch::Device;

use super::execution::Source;
use crate::plan::graph::Graph;
use crate::plan::identity::TRAJECTORY;
use crate::plan::keys::{self, KeyInputs};
use crate::plan::{Reason, Stage};
use oss_config::error::{ErrorReport, Status};
use oss_config::{Experiment, Provenance, SetBy};
use oss_runs::monitor;
use oss_runs::run_dir::{
    Environment, Exit, Manifest, RunDir, Segment, StageRecord, StageState, WriteLock, redact, write_atomic,
};
use oss_train::train;

/// A run locked by this process.
pub struct Session {
    /// Its stages.
    pub graph: Graph,
    /// Its manifest, as stored on disk.
    pub manifest: Manifest,
    _lock: WriteLock,
}

impl Session {
    /// Locks the run, writes its manifest, and opens a segment.
    ///
    /// # Errors
    /// The run is in use, or its directory cannot be written.
    pub(super) fn start(mut graph: Graph, source: &Source) -> Result<Self> {
        let run = graph.identity.run.clone();
        run.create()?;
        let lock = run.lock_for_writing()?;
        monitor::log_to(&run.log(0)).with_context(|| format!("cannot open {}", run.log(0).display()))?;
        // Load it again: before we held the lock, another process may have changed it.
        let mut manifest = if run.exists() {
            Manifest::load(&run)?
        } else {
            let name = graph.experiment.run.name.clone().unwrap_or_default();
            Manifest::new(run.id(), name, Value::Null)
        };
        keep_labels(&mut graph.experiment, &manifest, &source.provenance);
        manifest.experiment = serde_json::to_value(&graph.experiment)?;
        manifest.layers = layers(&source.provenance, &manifest);
        manifest.file =
            source.file.as_ref().and_then(|file| std::path::absolute(file).ok()).or(manifest.file);
        manifest.inputs = serde_json::to_value(&graph.inputs)?;
        let trajectory = &graph.identity.trajectory;
        let target = keys::target(&graph.experiment, trajectory).key();
        manifest.keys.insert(TRAJECTORY.to_owned(), trajectory.key().0);
        manifest.keys.insert("target".to_owned(), target.0);
        manifest.segments.push(segment(&graph, &run, manifest.file.as_deref()));
        graph.identity.manifest = Some(manifest.clone());
        let session = Self { graph, manifest, _lock: lock };
        session.save()?;
        session.write_experiment()?;
        Ok(session)
    }

    /// The run's directory.
    pub fn run(&self) -> &RunDir {
        &self.graph.identity.run
    }

    fn save(&self) -> Result<()> {
        Ok(self.manifest.save(self.run())?)
    }

    fn write_experiment(&self) -> Result<()> {
        let path = self.run().experiment_toml();
        let text = self.graph.experiment.to_toml().context("cannot serialize the experiment as TOML")?;
        write_atomic(&path, |out| out.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Records a key.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn record(&mut self, name: &str, key: String) -> Result<()> {
        self.manifest.keys.insert(name.to_owned(), key);
        self.save()
    }

    /// Records that `stage` starts, and why.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn begin(&mut self, stage: Stage, wanted: &KeyInputs, reason: &Reason) -> Result<()> {
        self.manifest.stages.insert(stage.name().to_owned(), started(wanted, reason.to_string()));
        self.save()
    }

    /// Records how `stage` ended, and passes on its error.
    ///
    /// # Errors
    /// The stage's error, or the manifest cannot be written.
    pub fn end(&mut self, stage: Stage, outcome: Result<BTreeMap<String, Value>>) -> Result<()> {
        if let Some(record) = self.manifest.stages.get_mut(stage.name()) {
            record.finished = Some(Utc::now());
            match &outcome {
                Ok(outputs) => {
                    record.state = StageState::Done;
                    record.outputs.clone_from(outputs);
                }
                Err(error) if is_stop(error) => record.state = StageState::Stopped,
                Err(error) => {
                    record.state = StageState::Failed;
                    record.reason = Some(redact(&ErrorReport::from(error).summary()));
                }
            }
        }
        let saved = self.save();
        // The first error is the one that matters.
        outcome?;
        saved
    }

    /// Closes the segment.
    ///
    /// # Errors
    /// The manifest cannot be written, and there was no earlier error.
    pub fn finish<T>(&mut self, outcome: &Result<T>) -> Result<()> {
        if let Some(segment) = self.manifest.segments.last_mut() {
            segment.finished = Some(Utc::now());
            segment.exit = Some(match outcome {
                Ok(_) => Exit::Done,
                Err(error) if is_stop(error) => Exit::Stopped,
                Err(error) => {
                    segment.error = Some(ErrorReport::from(error).map(redact));
                    Exit::Failed(redact(&error.to_string()))
                }
            });
        }
        let saved = self.save();
        if outcome.is_ok() { saved } else { Ok(()) }
    }
}

/// The record of a stage starting now.
pub fn started(wanted: &KeyInputs, reason: String) -> StageRecord {
    StageRecord {
        state: StageState::Running,
        key: wanted.key().0,
        version: wanted.version,
        values: wanted.values.clone(),
        inputs: wanted.digests.clone(),
        outputs: BTreeMap::new(),
        started: Utc::now(),
        finished: None,
        reason: Some(reason),
    }
}

/// Whether an error is a stop on request.
pub fn is_stop(error: &anyhow::Error) -> bool {
    Status::of(error) == Status::Stopped
}

/// Where each explicitly set key was set. A resumed run keeps earlier entries for keys that were not set again.
fn layers(provenance: &Provenance, known: &Manifest) -> BTreeMap<String, String> {
    let mut layers = known.layers.clone();
    let is_new = |key: &str| is_argument(provenance, key) || !known.is_marked(key);
    let set = provenance.iter().filter(|(key, set_by)| set_by.is_explicit() && is_new(key));
    layers.extend(set.map(|(key, set_by)| (key.to_owned(), redact(&set_by.to_string()))));
    layers
}

/// Labels and notes added later take precedence over the experiment file; the command line takes precedence over both.
pub fn keep_labels(experiment: &mut Experiment, manifest: &Manifest, provenance: &Provenance) {
    manifest.mark(&mut experiment.run, |key| is_argument(provenance, key));
}

fn is_argument(provenance: &Provenance, key: &str) -> bool {
    matches!(provenance.of(key), SetBy::Argument { .. })
}

/// A segment for the experiment in `file`, starting here and now, with the uncommitted changes of its working tree.
fn segment(graph: &Graph, run: &RunDir, file: Option<&Path>) -> Segment {
    let segment = segment_of(graph, file);
    if let Some(Err(error)) = segment.environment.git.as_ref().map(|git| git.keep(run)) {
        tracing::warn!("cannot save the uncommitted changes of the working tree: {error}");
    }
    segment
}

/// A segment for the experiment in `file`, starting here and now.
pub fn segment_of(graph: &Graph, file: Option<&Path>) -> Segment {
    // The repository of the experiment file, or of the working directory if that is gone.
    let around = file.and_then(Path::parent).filter(|folder| folder.is_dir());
    let environment = Environment::capture(around.unwrap_or(Path::new(".")));
    let settings = &graph.experiment.train;
    let threads = settings.threads.unwrap_or_else(|| usize::try_from(tch::get_num_threads()).unwrap_or(1));
    let device = match train::device(settings, 0) {
        Ok(Device::Cpu) => "cpu".to_owned(),
        Ok(device) => format!("{device:?}"),
        // Training reports the error, if it gets that far.
        Err(_) => settings.device.clone(),
    };
    Segment {
        environment,
        libtorch: oss_torch::LIBTORCH_VERSION.to_owned(),
        devices: vec![device],
        ranks: graph.experiment.sharding.ranks,
        threads: threads as u64,
        started: Utc::now(),
        finished: None,
        exit: None,
        error: None,
    }
}
