//! A run's weights, for questions from outside the graph: scoring a text, continuing one, exporting elsewhere.
//!
//! Only reading: a run may be asked while it trains. An open checkpoint is not pruned.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::Utc;

use super::compute;
use super::data;
use super::session::started;
use super::watch::watch;
use crate::plan::graph::{FILES, best_step, checkpoint_at};
use crate::plan::identity::{Identity, Trajectory, experiment_of};
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

    /// Opens the checkpoint of `step`, or the one that the run's `export.checkpoint` means.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn for_export(run: &RunDir, step: Option<u64>) -> Result<Self> {
        let graph = graph_of(run)?;
        let checkpoint = match (step, graph.experiment.export.checkpoint) {
            (Some(step), _) | (None, CheckpointChoice::Step(step)) => at(run, step)?,
            (None, CheckpointChoice::Named(NamedCheckpoint::Last)) => newest(run)?,
            (None, CheckpointChoice::Named(NamedCheckpoint::Best)) => match best_step(run)? {
                Some(step) => at(run, step)?,
                None => bail!(
                    UserError::failed("no kept checkpoint is known to be the best")
                        .hint("give one with --step")
                ),
            },
        };
        Ok(Self { graph, checkpoint })
    }

    /// The run's experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.graph.experiment
    }

    /// Lets `ranks` ranks share the weights, each with a slice, whatever the ranks that trained them.
    pub fn share_among(&mut self, ranks: u64) {
        let sharding = &mut self.graph.experiment.sharding;
        sharding.ranks = ranks.max(1);
        sharding.strategy = if ranks > 1 { Strategy::Fsdp } else { Strategy::None };
    }

    /// Where the checkpoint lies.
    pub fn checkpoint_path(&self) -> &Path {
        self.checkpoint.path()
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(super) fn checkpoint(&mut self) -> &mut Checkpoint {
        &mut self.checkpoint
    }

    /// The loss on the run's validation text.
    ///
    /// # Errors
    /// Nothing was held out, or the prepared data is gone.
    pub fn evaluate(self, world: &World) -> Result<Report> {
        let report = compute::evaluate(&self.graph, world, self.checkpoint)?;
        report.context("this run held nothing out").hint("give a text with --data FILE")
    }

    /// The loss on the documents of `file`, split and tokenised as prepare does.
    ///
    /// # Errors
    /// A file that is not there, unreadable or empty.
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
            .context("cannot make a temporary folder")
            .hint("set TMPDIR to one with room")?;
        let dir = folder.path().join("tokens");
        let options = PrepareOptions {
            source: name.clone(),
            validation_share: 1.0,
            expected_text_bytes: None,
            keep_going: &super::watch::keep_going,
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

    /// Continues the prompts of `settings` with weights that are held as `weights` says.
    ///
    /// # Errors
    /// The tokenizer is gone, or refuses a prompt; weights in 8 bits on a GPU or on several ranks.
    pub fn sample(self, settings: &Sample, weights: Weights, world: &World) -> Result<Samples> {
        compute::sample(&self.graph, world, self.checkpoint, settings, weights)
    }

    /// Writes the weights to `out`. The run's own export is written under its lock and recorded, so that the graph
    /// knows what is there.
    ///
    /// # Errors
    /// No room, a directory that holds something else, a run in use.
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
            let mut record = started(&wanted, "asked for by `oss-run export`".to_owned());
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

/// The directory of all runs that `run` is in, whose prepared data it uses.
///
/// # Errors
/// The working directory is gone.
pub fn runs_of(run: &RunDir) -> Result<RunsDir> {
    run.runs().with_context(|| format!("cannot find {}", run.root().display()))
}

/// The graph of a run as its manifest has it.
///
/// # Errors
/// The manifest cannot be read.
pub fn graph_of(run: &RunDir) -> Result<Graph> {
    let manifest = Manifest::load(run)?;
    let unreadable = || format!("{} is of another version of this program", run.manifest().display());
    let hint = "use the one that made it";
    let experiment = experiment_of(&manifest).with_context(unreadable).hint(hint)?;
    let inputs = serde_json::from_value(manifest.inputs.clone()).with_context(unreadable).hint(hint)?;
    let trajectory = Trajectory { experiment: &experiment, inputs: &inputs }.key_inputs()?;
    let identity = Identity { run: run.clone(), manifest: Some(manifest), trajectory };
    Ok(Graph { experiment, inputs, identity, runs: runs_of(run)? })
}

fn newest(run: &RunDir) -> Result<Checkpoint> {
    match checkpoint::list(&run.checkpoints()).last() {
        Some((_, path)) => Ok(Checkpoint::open(path)?),
        None => bail!(
            UserError::failed(format!("{} has no checkpoint yet", run.root().display()))
                .hint("let it train first")
        ),
    }
}

fn at(run: &RunDir, step: u64) -> Result<Checkpoint> {
    let found = checkpoint_at(run, step)?;
    found.with_context(|| format!("{} has no checkpoint of step {step}", run.root().display())).with_hint(
        || {
            let kept: Vec<String> =
                checkpoint::list(&run.checkpoints()).iter().map(|(step, _)| step.to_string()).collect();
            format!("it has those of steps {}", kept.join(", "))
        },
    )
}
