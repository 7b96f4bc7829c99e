//! An experiment with known inputs: the key of each stage, and whether its outputs are up to date.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::corpus::Corpus;
use super::identity::{self, Identity, TrainingFingerprint, steps_taken};
use super::inputs::{self, Inputs, NetworkAccess};
use super::keys::{self, Key, KeyInputs};
use super::planned_stage::Choices;
use super::staleness::{Freshness, Reason};
use oss_config::error::ErrorReport;
use oss_config::{CheckpointChoice, Experiment, NamedCheckpoint};
use oss_data::Prepared;
use oss_runs::run_dir::{Manifest, OutputFile, RunDir, RunsDir, Stage};
use oss_train::checkpoint::{self, Checkpoint};

/// The stages of one run.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The experiment, resolved: vocabulary filled in, hub revisions pinned.
    pub experiment: Experiment,
    /// Its inputs.
    pub inputs: Inputs,
    /// Its run.
    pub identity: Identity,
    /// The runs directory.
    pub runs: RunsDir,
}

/// Key of the file list in a stage's record.
pub const FILES: &str = "files";

/// Larger files are checked by size alone: an unchanged run must not read gigabytes.
const MAX_REHASHED_BYTES: u64 = 1 << 20;

impl Graph {
    /// Its text.
    pub fn corpus(&self) -> Corpus<'_> {
        Corpus { experiment: &self.experiment, inputs: &self.inputs, runs: &self.runs }
    }

    /// The step at which training ends: `train.steps`, unless `evaluate.patience` has been exhausted before.
    pub fn last_step(&self) -> u64 {
        identity::last_step(&self.identity.run, &self.experiment)
    }

    /// The current inputs of `stage`; `None` while the weights that it reads do not exist.
    ///
    /// # Errors
    /// An input that cannot be read.
    pub fn wanted(&self, stage: Stage) -> Result<Option<KeyInputs>> {
        let experiment = &self.experiment;
        Ok(match stage {
            Stage::Prepare => Some(self.prepare()?),
            Stage::Train => Some(keys::target(experiment, &self.identity.trajectory)),
            Stage::Evaluate => match self.weights(CheckpointChoice::Step(self.last_step()))? {
                Some(weights) => Some(keys::evaluate(experiment, &weights, &self.validation()?)),
                None => None,
            },
            Stage::Sample => self
                .weights(CheckpointChoice::Step(self.last_step()))?
                .map(|weights| keys::sample(experiment, &weights)),
            Stage::Export => self
                .weights(experiment.export.checkpoint)?
                .map(|weights| keys::export(experiment, &weights, &self.inputs.tokenizer)),
        })
    }

    /// All prepared sources of this run, as one record.
    fn prepare(&self) -> Result<KeyInputs> {
        let mut inputs = KeyInputs { version: Stage::Prepare.version(), ..KeyInputs::default() };
        for (source, key) in self.inputs.sources.iter().zip(self.corpus().prepared_sources()?) {
            inputs.digests.insert(format!("source {}", source.name), key.0);
        }
        if let Some(key) = self.corpus().prepared_validation()? {
            inputs.digests.insert("validation text".to_owned(), key.0);
        }
        Ok(inputs)
    }

    /// Content keys of the validation text: its own source, or the held-out part of each training source.
    fn validation(&self) -> Result<Vec<Key>> {
        Ok(match self.inputs.prepared_validation(&self.experiment)? {
            Some(own) => vec![own.content()],
            None => {
                let sources = self.inputs.prepared_sources(&self.experiment)?;
                sources.iter().map(KeyInputs::content).collect()
            }
        })
    }

    /// Digest of the weights of a checkpoint; `None` if it does not exist yet.
    fn weights(&self, choice: CheckpointChoice) -> Result<Option<String>> {
        let Some(checkpoint) = self.checkpoint(choice)? else { return Ok(None) };
        Ok(Some(checkpoint.weights_digest().to_owned()))
    }

    /// The checkpoint that `choice` refers to in this run; `None` if it does not exist yet.
    ///
    /// # Errors
    /// A corrupted checkpoint.
    pub fn checkpoint(&self, choice: CheckpointChoice) -> Result<Option<Checkpoint>> {
        let step = match choice {
            CheckpointChoice::Step(step) => step,
            CheckpointChoice::Named(NamedCheckpoint::Last) => self.last_step(),
            CheckpointChoice::Named(NamedCheckpoint::Best) => match best_step(&self.identity.run)? {
                Some(step) => step,
                None => return Ok(None),
            },
        };
        checkpoint_at(&self.identity.run, step)
    }

    /// Whether `stage` has to run. `manifest` is the run's current manifest, which running stages change.
    ///
    /// # Errors
    /// An input or output cannot be read.
    pub(super) fn freshness(&self, stage: Stage, manifest: Option<&Manifest>) -> Result<Freshness> {
        let stale = |reason| Ok(Freshness::Stale { reason });
        let Some(wanted) = self.wanted(stage)? else { return stale(Reason::After(Stage::Train)) };
        let record = manifest.and_then(|manifest| manifest.stages.get(stage.name()));
        if stage == Stage::Prepare {
            // Prepared data is shared: another run may have created or removed it.
            return Ok(match self.missing_preparation()? {
                None => Freshness::Fresh { note: None },
                Some(missing) => {
                    Freshness::Stale { reason: Reason::find(record, &wanted).unwrap_or(missing) }
                }
            });
        }
        if let Some(mut reason) = Reason::find(record, &wanted) {
            if let (Stage::Train, Reason::Unfinished { progress, .. }) = (stage, &mut reason) {
                let taken = identity::continuable(&self.identity.run, &self.experiment).unwrap_or(0);
                *progress = Some(format!("step {taken} of {}", self.experiment.train.steps));
            }
            return stale(reason);
        }
        if let Some(reason) = self.damaged_output(stage, manifest)? {
            return stale(reason);
        }
        Ok(Freshness::Fresh { note: self.note(stage) })
    }

    fn note(&self, stage: Stage) -> Option<String> {
        let (then, now) = (self.identity.trajectory.version, stage.version());
        (stage == Stage::Train && then != now).then(|| {
            format!("made by version {then} of this stage, now {now}; use `--force train` to retrain")
        })
    }

    /// Why prepared data cannot be used as it is; `None` if all of it is present.
    fn missing_preparation(&self) -> Result<Option<Reason>> {
        for key in self.corpus().prepared_sources()?.into_iter().chain(self.corpus().prepared_validation()?) {
            let dir = self.runs.prepared(&key.0);
            if !dir.is_dir() {
                return Ok(Some(Reason::OutputMissing(dir)));
            }
            if let Err(error) = Prepared::open(&dir) {
                return Ok(Some(Reason::OutputDamaged { path: dir, what: ErrorReport::of(error).summary() }));
            }
        }
        Ok(None)
    }

    fn damaged_output(&self, stage: Stage, manifest: Option<&Manifest>) -> Result<Option<Reason>> {
        let run = &self.identity.run;
        if stage == Stage::Train {
            let steps = self.last_step();
            let complete = steps_taken(run) >= steps && checkpoint_at(run, steps)?.is_some();
            return Ok((!complete).then_some(Reason::CheckpointMissing(steps)));
        }
        let record = manifest.and_then(|manifest| manifest.stages.get(stage.name()));
        let files: Vec<OutputFile> = record
            .and_then(|record| record.outputs.get(FILES))
            .map(|files| serde_json::from_value(files.clone()))
            .transpose()
            .with_context(|| format!("cannot read the record of {stage} in {}", run.manifest().display()))?
            .unwrap_or_default();
        Ok(files.iter().find_map(|file| damage(run.root(), file)))
    }
}

/// How a file differs from what was written, if it does.
fn damage(root: &Path, file: &OutputFile) -> Option<Reason> {
    let path = root.join(&file.path);
    let damaged = |what: String| Some(Reason::OutputDamaged { path: path.clone(), what });
    let Ok(found) = fs::metadata(&path) else { return Some(Reason::OutputMissing(path.clone())) };
    if found.len() != file.bytes {
        return damaged(format!("{} of {} bytes", found.len(), file.bytes));
    }
    if file.bytes > MAX_REHASHED_BYTES {
        return None;
    }
    match fs::read(&path) {
        Ok(bytes) if blake3::hash(&bytes).to_hex().as_str() == file.blake3 => None,
        Ok(_) => damaged("content differs".to_owned()),
        Err(error) => damaged(error.to_string()),
    }
}

/// Step of the stored checkpoint with the lowest validation loss; `None` before the first evaluation.
///
/// # Errors
/// A corrupted checkpoint.
pub fn best_step(run: &RunDir) -> Result<Option<u64>> {
    let kept = checkpoint::list(&run.checkpoints());
    let Some((_, newest)) = kept.last() else { return Ok(None) };
    let best = Checkpoint::open(newest)?.state()["best"]["step"].as_u64();
    Ok(best.filter(|best| kept.iter().any(|(step, _)| step == best)))
}

/// The complete checkpoint of a step, if there is one.
///
/// # Errors
/// It is corrupted.
pub fn checkpoint_at(run: &RunDir, step: u64) -> Result<Option<Checkpoint>> {
    let found = checkpoint::list(&run.checkpoints()).into_iter().find(|(other, _)| *other == step);
    Ok(found.map(|(_, path)| Checkpoint::open(&path)).transpose()?)
}

/// The stages of `experiment`, which must be [complete](super::complete); `None` if `reach` is local and an input on the
/// hub is unresolved, or the number of steps unknown until the text is prepared.
///
/// # Errors
/// An input cannot be found, the initial weights do not match `[model]` or the tokenizer, or the existing run does not
/// allow the change ([`PlanError`](super::PlanError)).
pub fn graph(
    experiment: Experiment,
    runs: &RunsDir,
    choices: &Choices,
    reach: NetworkAccess<'_>,
) -> Result<Option<Graph>> {
    let Some(inputs) = Inputs::find(&experiment, runs, reach)? else { return Ok(None) };
    if experiment.train.epochs.is_some() {
        return Ok(None);
    }
    let name = experiment.run.name.clone().unwrap_or_else(|| "experiment".to_owned());
    let trajectory = TrainingFingerprint { experiment: &experiment, inputs: &inputs };
    let identity = identity::find(runs, &name, trajectory, choices.new)?;
    if let Some(initial) = inputs.initial.as_ref().filter(|_| steps_taken(&identity.run) == 0) {
        initial.check(&experiment.model, reach)?;
        initial.check_tokenizer(&experiment, &inputs, runs, reach)?;
    }
    let experiment = inputs::pinned(&experiment, &inputs);
    Ok(Some(Graph { experiment, inputs, identity, runs: runs.clone() }))
}
