//! A run's weights for use outside the graph: evaluating a text, sampling, exporting elsewhere.
//!
//! It works while the run is training: it does not write to the run, and an open checkpoint is not pruned.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::Utc;

use super::compute;
use super::data;
use super::progress::watch;
use super::session::started;
use crate::plan::graph::{FILES, best_step, checkpoint_at};
use crate::plan::identity::{Identity, TrainingFingerprint, experiment_of};
use crate::plan::{Graph, PlanError, keys};
use crate::stages::evaluate::{self, Report};
use crate::stages::export;
use crate::stages::sample::{Samples, Weights};
use oss_config::error::{Hint, UserError};
use oss_config::{CheckpointChoice, Experiment, Export, NamedCheckpoint, Origin, Sample, Strategy};
use oss_data::sources::{ReadOptions, SourceFiles};
use oss_data::{PrepareOptions, Prepared, prepare_source};
use oss_runs::run_dir::{Manifest, OutputFile, RunDir, RunsDir, StageState};
use oss_train::checkpoint::{self, Checkpoint};
use oss_train::distributed::World;

/// A run and one of its checkpoints.
pub struct Trained {
    graph: Graph,
    checkpoint: Checkpoint,
}

impl Trained {
    /// Opens the checkpoint of `step`, or the newest.
    ///
    /// # Errors
    /// The run has no such checkpoint, or its manifest cannot be read.
    pub fn open(run: &RunDir, step: Option<u64>) -> Result<Self> {
        let graph = graph_of(run)?;
        let checkpoint = match step {
            Some(step) => at(run, step)?,
            None => newest(run)?,
        };
        Ok(Self { graph, checkpoint })
    }

    /// Opens the checkpoint of `step`, or the one that the run's `export.checkpoint` refers to.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn for_export(run: &RunDir, step: Option<u64>) -> Result<Self> {
        let graph = graph_of(run)?;
        let checkpoint = match (step, graph.experiment.export.checkpoint) {
            (Some(step), _) | (None, CheckpointChoice::Step(step)) => at(run, step)?,
            (None, CheckpointChoice::Named(NamedCheckpoint::Last)) => newest(run)?,
            (None, CheckpointChoice::Named(NamedCheckpoint::Best)) => match best_step(run)? {
                Some(step) => at(run, step)?,
                None => bail!(
                    UserError::failed("none of the stored checkpoints is marked as the best")
                        .hint("choose one with --step")
                ),
            },
        };
        Ok(Self { graph, checkpoint })
    }

    /// The run's experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.graph.experiment
    }

    /// Shards the weights over `ranks` ranks, regardless of how many ranks trained them.
    pub fn share_among(&mut self, ranks: u64) {
        let sharding = &mut self.graph.experiment.sharding;
        sharding.ranks = ranks.max(1);
        sharding.strategy = if ranks > 1 { Strategy::Fsdp } else { Strategy::None };
    }

    /// Path of the checkpoint.
    pub fn checkpoint_path(&self) -> &Path {
        self.checkpoint.path()
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(super) fn checkpoint(&mut self) -> &mut Checkpoint {
        &mut self.checkpoint
    }

    /// The loss on the run's validation set.
    ///
    /// # Errors
    /// Nothing was held out, or the prepared data is missing.
    pub fn evaluate(self, world: &World) -> Result<Report> {
        let report = compute::evaluate(&self.graph, world, self.checkpoint)?;
        report.context("this run has no validation set").hint("pass a text file with --data FILE")
    }

    /// The loss on the documents of `file`, split and tokenized as in the prepare stage.
    ///
    /// # Errors
    /// The file is missing, unreadable or empty.
    pub fn evaluate_file(self, file: &Path, world: &World) -> Result<Report> {
        let name = file.display().to_string();
        let unreadable = |cause| PlanError::Text { name: name.clone(), cause };
        let options = ReadOptions::training(&self.graph.experiment.dataset, None);
        let pattern = [name.clone()];
        let documents = SourceFiles::resolve(&Origin::Files(&pattern), &options, watch())
            .and_then(|files| files.documents(watch()))
            .map_err(unreadable)?;
        let tokenizer = data::tokenizer(&self.graph)?;
        let folder = tempfile::tempdir()
            .context("cannot create a temporary directory")
            .hint("set TMPDIR to a directory with free space")?;
        let dir = folder.path().join("tokens");
        let options = PrepareOptions {
            source: name.clone(),
            validation_share: 1.0,
            expected_text_bytes: None,
            bad_rows: documents.bad_rows(),
            keep_going: &super::progress::keep_going,
            progress: &mut |_| (),
        };
        let index = prepare_source(documents, &tokenizer, &dir, options).map_err(unreadable)?;
        let prepared = Prepared::open(&dir)?;
        evaluate::evaluate(evaluate::Inputs {
            experiment: &self.graph.experiment,
            world,
            checkpoint: self.checkpoint,
            tokens: &prepared.val()?,
            bytes_per_token: index.validation.text_bytes as f64 / index.validation.tokens as f64,
            max_tokens: None,
            end_of_text: tokenizer.end_of_text(),
        })
    }

    /// Samples continuations of the prompts in `settings`, with the weights stored in the given dtype.
    ///
    /// # Errors
    /// The tokenizer is missing or rejects a prompt; int8 weights on a GPU or on several ranks.
    pub fn sample(self, settings: &Sample, weights: Weights, world: &World) -> Result<Samples> {
        compute::sample(&self.graph, world, self.checkpoint, settings, weights)
    }

    /// Writes the weights to `out`. The run's own export is written under the run's lock and recorded in its manifest.
    ///
    /// # Errors
    /// The disk is full, the directory contains other files, or the run is in use.
    pub fn export(self, settings: &Export, out: &Path) -> Result<Vec<OutputFile>> {
        let Self { graph, checkpoint } = self;
        let run = &graph.identity.run;
        let own = std::path::absolute(run.export()).is_ok_and(|own| own == out);
        let root = if own { std::path::absolute(run.root())? } else { out.to_owned() };
        let _lock = own.then(|| run.lock_for_writing()).transpose()?;
        let weights = checkpoint.weights_digest().to_owned();
        let inputs = export::Inputs {
            experiment: &graph.experiment,
            settings,
            checkpoint,
            tokenizer: &data::tokenizer(&graph)?,
            out: out.to_owned(),
        };
        let files = export::export(inputs, &root)?;
        if own {
            let experiment = Experiment { export: settings.clone(), ..graph.experiment.clone() };
            let wanted = keys::export(&experiment, &weights, &graph.inputs.tokenizer);
            let mut record = started(&wanted, "requested by `oss-run export`".to_owned());
            record.state = StageState::Done;
            record.finished = Some(Utc::now());
            record.outputs.insert(FILES.to_owned(), serde_json::to_value(&files)?);
            let mut manifest = Manifest::load(run)?;
            manifest.stages.insert(crate::plan::Stage::Export.name().to_owned(), record);
            manifest.save(run)?;
        }
        Ok(files)
    }
}

/// The runs directory of `run`, whose prepared data it uses.
///
/// # Errors
/// The working directory no longer exists.
pub fn runs_of(run: &RunDir) -> Result<RunsDir> {
    run.runs().with_context(|| format!("cannot find {}", run.root().display()))
}

/// The graph of a run, from its manifest.
///
/// # Errors
/// The manifest cannot be read.
pub fn graph_of(run: &RunDir) -> Result<Graph> {
    let manifest = Manifest::load(run)?;
    let unreadable =
        || format!("{} was written by another version of this program", run.manifest().display());
    let hint = "use the version of oss-run that created it";
    let experiment = experiment_of(&manifest).with_context(unreadable).hint(hint)?;
    let inputs = serde_json::from_value(manifest.inputs.clone()).with_context(unreadable).hint(hint)?;
    let trajectory = TrainingFingerprint { experiment: &experiment, inputs: &inputs }.key_inputs()?;
    let identity = Identity { run: run.clone(), manifest: Some(manifest), trajectory };
    Ok(Graph { experiment, inputs, identity, runs: runs_of(run)? })
}

fn newest(run: &RunDir) -> Result<Checkpoint> {
    match checkpoint::list(&run.checkpoints()).last() {
        Some((_, path)) => Ok(Checkpoint::open(path)?),
        None => bail!(
            UserError::failed(format!("{} has no checkpoints yet", run.root().display()))
                .hint("train it first")
        ),
    }
}

fn at(run: &RunDir, step: u64) -> Result<Checkpoint> {
    let found = checkpoint_at(run, step)?;
    found.with_context(|| format!("{} has no checkpoint of step {step}", run.root().display())).with_hint(
        || {
            let kept: Vec<String> =
                checkpoint::list(&run.checkpoints()).iter().map(|(step, _)| step.to_string()).collect();
            format!("available steps: {}", kept.join(", "))
        },
    )
}
