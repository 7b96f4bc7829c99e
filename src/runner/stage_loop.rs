//! Runs the stages in order: skips those that are up to date, and records the outcome.

use std::collections::{BTreeMap, VecDeque};
use std::fs;

use anyhow::{Context, Error, Result, bail};
use serde_json::{Value, json};

use super::commands::{Task, manifest_digest, same_directory};
use super::compute;
use super::data::{self, Data};
use super::session::{Session, is_stop};
use super::summary::StageSummary;
use super::{Options, disk_space};
use crate::plan::graph::FILES;
use crate::plan::identity::steps_taken;
use crate::plan::overlap::{self, Overlap};
use crate::plan::{self, Freshness, Graph, PlannedStage, Reason, Stage};
use crate::stages::export;
use crate::stages::sample::Weights;
use oss_config::CheckpointChoice;
use oss_config::error::Stopped;
use oss_config::error::{Hint, UserError};
use oss_runs::interrupt;
use oss_runs::monitor::{InProgress, set_status_interval};
use oss_runs::run_dir::{OutputFile, RunDir, SKIPPED_STEPS, TARGET_STEPS, write_json};
use oss_train::checkpoint::{self, Checkpoint};
use oss_train::distributed::World;

/// The outputs of a stage, by name.
type Outputs = BTreeMap<String, Value>;

/// Runs the stages that are not up to date.
///
/// # Errors
/// A stage failed, or stopped on request.
pub fn run_stages(session: &mut Session, options: &Options, world: &World) -> Result<Vec<StageSummary>> {
    let mut summaries = Vec::new();
    set_status_interval(session.graph.experiment.log.every_seconds);
    // Plan again: before we held the lock, another process may have changed the run.
    let mut left = VecDeque::from(plan::stages(&session.graph, Some(&session.manifest), &options.choices)?);
    while let Some(planned) = left.pop_front() {
        let PlannedStage { stage, freshness } = &planned;
        interrupt::check().map_err(|stop| stopped(stop.into(), session.run(), &format!("before {stage}")))?;
        tracing::info!("{stage:<10} {freshness}");
        if let Freshness::Stale { reason } = freshness {
            let _status = InProgress::new(stage.name());
            run_one(session, *stage, reason, options, world)?;
            left =
                plan::stages_after(*stage, &session.graph, Some(&session.manifest), &options.choices)?.into();
        }
        summaries.push(StageSummary::of(&planned));
    }
    Ok(summaries)
}

fn run_one(
    session: &mut Session,
    stage: Stage,
    reason: &Reason,
    options: &Options,
    world: &World,
) -> Result<()> {
    let Some(wanted) = session.graph.wanted(stage)? else {
        bail!(missing_checkpoint(&session.graph, stage));
    };
    match (stage, reason) {
        (Stage::Train, Reason::Forced) => set_checkpoints_aside(session.run())?,
        (Stage::Train, _) => {
            check_tokens(session)?;
            if let Some(overlap) = Overlap::of(&session.graph) {
                tracing::warn!("{}\nhint: {}", overlap.message(), overlap::FIX);
            }
        }
        _ => {}
    }
    session.begin(stage, &wanted, reason)?;
    let outcome = match stage {
        Stage::Prepare => run_prepare(&session.graph, *reason == Reason::Forced),
        Stage::Train => run_train(session, options, world),
        Stage::Evaluate => run_evaluate(&session.graph, world),
        Stage::Sample => run_sample(&session.graph, world),
        Stage::Export => run_export(&session.graph),
    };
    let outcome = outcome.map_err(|error| {
        if !is_stop(&error) {
            return error.context(format!("{stage} failed"));
        }
        // The error from training contains the step.
        let says_where = stage == Stage::Train && error.chain().count() > 1;
        let place = if says_where { error.to_string() } else { format!("in {stage}") };
        stopped(error, session.run(), &place)
    });
    session.end(stage, outcome)
}

fn stopped(error: Error, run: &RunDir, place: &str) -> Error {
    error
        .context(format!("stopped {place}"))
        .with_hint(|| format!("resume with `oss-run resume {}`", run.root().display()))
}

fn missing_checkpoint(graph: &Graph, stage: Stage) -> UserError {
    let kept: Vec<String> = checkpoint::list(&graph.identity.run.checkpoints())
        .iter()
        .map(|(step, _)| step.to_string())
        .collect();
    let choice = match (stage, graph.experiment.export.checkpoint) {
        (Stage::Export, CheckpointChoice::Step(step)) => format!("export.checkpoint = {step}"),
        (Stage::Export, CheckpointChoice::Named(name)) => {
            format!("export.checkpoint = {name:?}").to_lowercase()
        }
        _ => format!("{stage}"),
    };
    UserError::failed(format!(
        "{choice} needs a checkpoint that does not exist (available: {})",
        kept.join(", ")
    ))
    .hint(
        "set export.checkpoint to one of these, or keep more with checkpoint.keep_every or \
         checkpoint.keep_best",
    )
}

fn run_prepare(graph: &Graph, force: bool) -> Result<Outputs> {
    let made = data::prepare_corpus(graph.corpus(), force)?;
    Ok(made.into_iter().map(|(name, dir, index)| (name, json!({ "dir": dir, "index": index }))).collect())
}

/// Key under which the train stage records the digests of its tokens.
const TOKENS: &str = "tokens";

/// Checks that regenerated data equals the data that the run has been trained on so far.
fn check_tokens(session: &Session) -> Result<()> {
    let record = session.manifest.keys.get(TOKENS);
    let now = Data::open(&session.graph)?.digests().join(" ");
    match record {
        Some(then) if *then != now && steps_taken(session.run()) > 0 => bail!(
            UserError::failed(format!(
                "the prepared tokens differ from those that {} has been trained on so far",
                session.run().root().display()
            ))
            .hint("start over with --force train, or start a new run with --new")
        ),
        _ => Ok(()),
    }
}

/// Training that starts over begins without checkpoints; the old ones are kept until it finishes.
fn set_checkpoints_aside(run: &RunDir) -> Result<()> {
    let (current, aside) = (run.checkpoints(), run.replaced_checkpoints());
    // Checkpoints already set aside are complete; the current ones are left over from an interrupted attempt.
    let moved = if aside.exists() { fs::remove_dir_all(&current) } else { fs::rename(&current, &aside) };
    moved
        .and_then(|()| fs::create_dir_all(&current))
        .with_context(|| format!("cannot move {} aside", current.display()))
}

fn run_train(session: &mut Session, options: &Options, world: &World) -> Result<Outputs> {
    let Options { stop_at_step, force_start, .. } = *options;
    let data = Data::open(&session.graph)?;
    session.record(TOKENS, data.digests().join(" "))?;
    let graph = &session.graph;
    let (experiment, run) = (&graph.experiment, session.run());
    if !force_start {
        disk_space::check(experiment, run, graph.runs.root())?;
    }
    let manifest = manifest_digest(run)?;
    world.broadcast(Some(Task::Train {
        run: run.root().to_owned(),
        manifest: manifest.clone(),
        stop_at_step,
    }))?;
    world.all_ok(same_directory(run, &manifest))?;
    let outcome = compute::train(graph, world, stop_at_step)?;
    let (step, steps) = (outcome.step, experiment.train.steps);
    if !outcome.finished {
        return Err(Stopped).with_context(|| format!("at step {step} of {steps}"));
    }
    let Some(last) = session.graph.checkpoint(CheckpointChoice::Step(step))? else {
        bail!(
            UserError::failed(format!("training ended without the checkpoint of step {step}"))
                .hint(format!("see the log in {}", run.log(0).display()))
        );
    };
    let aside = run.replaced_checkpoints();
    if aside.exists() {
        fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
    }
    Ok(Outputs::from([
        ("step".to_owned(), json!(step)),
        (TARGET_STEPS.to_owned(), json!(steps)),
        (SKIPPED_STEPS.to_owned(), json!(outcome.skipped)),
        ("weights".to_owned(), json!(last.weights_digest())),
        ("checkpoint".to_owned(), json!(last.path().strip_prefix(run.root()).unwrap_or(last.path()))),
    ]))
}

fn last_checkpoint(graph: &Graph) -> Result<Checkpoint> {
    let step = graph.last_step();
    let checkpoint = graph.checkpoint(CheckpointChoice::Step(step))?;
    checkpoint.with_context(|| format!("no checkpoint of step {step}")).hint("run the train stage")
}

fn run_evaluate(graph: &Graph, world: &World) -> Result<Outputs> {
    let run = &graph.identity.run;
    let path = run.evaluation();
    let checkpoint = last_checkpoint(graph)?;
    let place = checkpoint.path().to_owned();
    world.broadcast(Some(Task::Evaluate { run: run.root().to_owned(), checkpoint: place }))?;
    let Some(report) = compute::evaluate(graph, world, checkpoint)? else {
        tracing::info!("{:<10} no held-out data to evaluate on", Stage::Evaluate);
        return Ok(Outputs::new());
    };
    write_json(&path, &report).with_context(|| format!("cannot write {}", path.display()))?;
    report.show(run, &graph.experiment);
    Ok(Outputs::from([
        ("loss".to_owned(), json!(report.evaluation.loss)),
        (FILES.to_owned(), json!([OutputFile::of(run.root(), &path)?])),
    ]))
}

fn run_sample(graph: &Graph, world: &World) -> Result<Outputs> {
    let run = &graph.identity.run;
    let checkpoint = last_checkpoint(graph)?;
    let place = checkpoint.path().to_owned();
    world.broadcast(Some(Task::Sample { run: run.root().to_owned(), checkpoint: place }))?;
    let samples = compute::sample(graph, world, checkpoint, &graph.experiment.sample, Weights::AsTrained)?;
    let paths = samples.write(run)?;
    let files: Vec<OutputFile> =
        paths.iter().map(|path| OutputFile::of(run.root(), path)).collect::<Result<_>>()?;
    Ok(Outputs::from([(FILES.to_owned(), json!(files))]))
}

fn run_export(graph: &Graph) -> Result<Outputs> {
    let run = &graph.identity.run;
    let Some(checkpoint) = graph.checkpoint(graph.experiment.export.checkpoint)? else {
        bail!(missing_checkpoint(graph, Stage::Export));
    };
    let step = checkpoint.step();
    let inputs = export::Inputs {
        experiment: &graph.experiment,
        settings: &graph.experiment.export,
        checkpoint,
        tokenizer: &data::tokenizer(graph)?,
        out: run.export(),
    };
    let files = export::export(inputs, run.root())?;
    Ok(Outputs::from([("step".to_owned(), json!(step)), (FILES.to_owned(), json!(files))]))
}
