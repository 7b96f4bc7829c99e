//! `oss-run plan`: what a run would do and what it would cost.

mod costs;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::BinaryBytes;
use serde::Serialize;

use super::output::{print, print_json};
use super::run::Experiment;
use super::table::VALUES;
use crate::plan::calibration::{self, Calibration};
use crate::plan::communication::{Interconnect, Traffic, interconnects, traffic};
use crate::plan::derived::explained;
use crate::plan::disk::{Disk, disk};
use crate::plan::estimate::{Estimate, estimate};
use crate::plan::gpus::{Fit, Saving, fits, savings};
use crate::plan::identity::steps_taken;
use crate::plan::inputs::Source;
use crate::plan::lints::{Advice, Known, SourceTokens, advice};
use crate::plan::memory::{Memory, memory};
use crate::plan::mesh::{Mesh, on_gpu};
use crate::plan::overlap::Overlap;
use crate::plan::render::{Language, draw};
use crate::plan::throughput::Throughput;
use crate::plan::unfinished::left_behind;
use crate::plan::{self, Choices, Graph, NetworkAccess, PlannedStage};
use oss_config::error::{Hint, UserError};
use oss_config::{Explained, SetBy};
use oss_data::Prepared;
use oss_data::sources::Watch;
use oss_runs::interrupt;
use oss_runs::run_dir::{Host, RunsDir, free_bytes};
use oss_runs::storage::FileLock;
use oss_train::train::{self, DryRun};

/// Arguments of `oss-run plan`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
    /// Show every value, including defaults, and where it was set
    #[arg(long)]
    explain: bool,
    /// Print only the graph of stages
    #[arg(long, value_name = "LANGUAGE", value_enum, num_args = 0..=1, default_missing_value = "text", conflicts_with = "json")]
    graph: Option<Language>,
    /// Measure this device's throughput in a few steps on synthetic tokens; the result is saved for later plans
    #[arg(long)]
    calibrate: bool,
    /// Simulate one rank: initialize its shard, write its part of a checkpoint, and measure peak memory
    #[arg(long)]
    dry_run: bool,
    /// Rank to simulate
    #[arg(long, value_name = "R", default_value_t = 0, requires = "dry_run")]
    rank: u64,
    /// Training steps of the dry run, on synthetic tokens
    #[arg(long, value_name = "N", default_value_t = 0, requires = "dry_run")]
    steps: u64,
    /// Print the plan as one JSON document
    #[arg(long)]
    json: bool,
}

/// The plan, as printed by `--json`.
#[derive(Debug, Serialize)]
struct Plan {
    /// Every value.
    experiment: oss_config::Experiment,
    /// Where each value came from.
    values: Vec<Explained>,
    /// The run; `None` while the commit of a hub dataset is unknown.
    run: Option<PlannedRun>,
    /// Each stage; `None` while the commit of a hub dataset is unknown.
    stages: Option<Vec<PlannedStage>>,
    #[serde(flatten)]
    estimate: Estimate,
    /// Passes over the training tokens; known once they are prepared.
    epochs: Option<f64>,
    /// The same for each training source; empty until they are prepared.
    sources: Vec<PlannedSource>,
    /// Held-out tokens; known once they are prepared.
    validation_tokens: Option<u64>,
    mesh: Mesh,
    /// Per rank.
    memory: PlannedMemory,
    /// Bytes sent per rank and step.
    traffic: PlannedTraffic,
    interconnects: Vec<Interconnect>,
    fits: Vec<Fit>,
    savings: Vec<Saving>,
    disk: Disk,
    /// Free bytes in the runs directory; unknown on some file systems.
    disk_free: Option<u64>,
    /// Known after the run's first steps.
    throughput: Option<Throughput>,
    /// Known if it was measured for an experiment like this one.
    calibration: Option<Calibration>,
    /// Warnings about unwise settings.
    advice: Vec<Advice>,
    /// Measurements of one simulated rank, if requested.
    dry_run: Option<DryRun>,
}

/// Memory per rank, with totals.
#[derive(Debug, Serialize)]
struct PlannedMemory {
    #[serde(flatten)]
    kinds: Memory,
    /// Parameters, gradients and optimizer state.
    state: u64,
    /// Memory on the training device.
    on_device: u64,
    /// Host and device.
    total: u64,
    /// The device is a GPU with its own memory.
    on_gpu: bool,
}

/// Bytes sent per rank, with their total.
#[derive(Debug, Serialize)]
struct PlannedTraffic {
    #[serde(flatten)]
    kinds: Traffic,
    total: u64,
}

/// Tokens of a training source, and how often they are read.
#[derive(Debug, Serialize)]
struct PlannedSource {
    #[serde(flatten)]
    source: SourceTokens,
    epochs: f64,
}

#[derive(Debug, Serialize)]
struct PlannedRun {
    id: String,
    directory: std::path::PathBuf,
    exists: bool,
    steps_taken: u64,
}

/// Plans and prints. Nothing is downloaded, and nothing is allocated except in a dry run. Digests of local files are
/// cached for the run.
pub fn plan(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let resolved = arguments.experiment.load()?;
    let watch = Watch { keep_going: &|| Ok(interrupt::check()?), progress: &|_| () };
    let local = NetworkAccess::Local(watch);
    let resolved = plan::complete(&resolved, runs, local)?;
    let experiment = resolved.experiment.clone();
    let choices = Choices::default();
    let graph = plan::graph(experiment.clone(), runs, &choices, local)?;
    let planned = |graph: &Graph| plan::stages(graph, graph.identity.manifest.as_ref(), &choices);
    let stages = graph.as_ref().map(planned).transpose()?;
    if let Some(language) = arguments.graph {
        return print(&draw(&experiment, stages.as_deref(), language));
    }
    let estimate = estimate(&experiment);
    let taken = graph.as_ref().map_or(0, |graph| steps_taken(&graph.identity.run));
    let left = estimate.tokens.saturating_sub(taken * estimate.tokens_per_step);
    let throughput = graph.as_ref().and_then(|graph| Throughput::of(&graph.identity.run, left));
    let (memory, traffic) = (memory(&experiment), traffic(&experiment));
    let calibration = match arguments.calibrate {
        true => Some(calibrated(&experiment, &memory, runs)?),
        false => calibration::recall(&experiment, runs),
    };
    let prepared = graph.as_ref().map(Tokens::of).unwrap_or_default();
    let on_purpose = |key: &str| resolved.provenance.of(key).is_explicit();
    let known = Known {
        sources: prepared.sources.clone(),
        overlap: graph.as_ref().and_then(Overlap::of),
        validation_tokens: prepared.validation,
        tokens_per_second: throughput
            .map(|throughput| throughput.tokens_per_second)
            .or(calibration.map(|it| it.tokens_per_second)),
        evaluates_on_purpose: on_purpose("evaluate.every_steps"),
        samples_on_purpose: on_purpose("sample.every_steps"),
    };
    // Most of it is about the number of steps.
    let advice = match experiment.train.epochs {
        Some(_) => Vec::new(),
        None => advice(&experiment, &estimate, &known),
    };
    let planned = Plan {
        values: explained(&resolved),
        run: graph.as_ref().map(|graph| PlannedRun {
            id: graph.identity.run.id(),
            directory: graph.identity.run.root().to_owned(),
            exists: graph.identity.manifest.is_some(),
            steps_taken: taken,
        }),
        stages,
        epochs: prepared.training().map(|tokens| estimate.tokens as f64 / tokens as f64),
        sources: prepared
            .sources
            .into_iter()
            .map(|source| PlannedSource { epochs: source.epochs(estimate.tokens), source })
            .collect(),
        mesh: Mesh::of(&experiment.sharding),
        traffic: PlannedTraffic { total: traffic.total(), kinds: traffic },
        interconnects: interconnects(&experiment, &estimate, throughput),
        fits: fits(&experiment, &memory),
        savings: savings(&experiment),
        memory: PlannedMemory {
            state: memory.state(),
            on_device: memory.on_device(),
            total: memory.total(),
            on_gpu: on_gpu(&experiment.train),
            kinds: memory,
        },
        validation_tokens: prepared.validation,
        disk: disk(&experiment),
        disk_free: free_bytes(runs.root()).ok(),
        dry_run: arguments.dry_run.then(|| dry_run(&experiment, arguments, runs)).transpose()?,
        throughput,
        calibration,
        advice,
        estimate,
        experiment,
    };
    if arguments.json {
        return print_json(&planned);
    }
    print(&planned.show(arguments.explain))?;
    if let Some(notice) = graph.as_ref().and_then(left_behind) {
        tracing::warn!("{notice}");
    }
    for Advice { key, message, fix } in &planned.advice {
        let place = match resolved.provenance.of(key) {
            set_by if set_by.is_explicit() => format!("{set_by}: "),
            _ => String::new(),
        };
        tracing::warn!("{place}`{key}`: {message}\nhint: {fix}");
    }
    let needed = planned.disk.total();
    if planned.disk_free.is_some_and(|free| free < needed) {
        tracing::warn!(
            "not enough disk space at {} for the {} of this run\nhint: free some space, keep fewer \
             checkpoints, or choose another directory with --runs-dir",
            runs.root().display(),
            BinaryBytes(needed)
        );
    }
    Ok(())
}

/// About as long as a user is willing to wait for a plan.
const CALIBRATION: Duration = Duration::from_secs(20);

/// Measures the training throughput of this device if the model fits into its memory.
fn calibrated(experiment: &oss_config::Experiment, memory: &Memory, runs: &RunsDir) -> Result<Calibration> {
    let host = Host::this().memory_bytes;
    if !on_gpu(&experiment.train) && memory.total() > host {
        return Err(UserError::wrong(format!(
            "a step needs {} per rank, but this machine has {}",
            BinaryBytes(memory.total()),
            BinaryBytes(host)
        ))
        .hint("plan without --calibrate, or calibrate on the machine that will train")
        .into());
    }
    let speed = train::calibrate(experiment, CALIBRATION)?;
    calibration::remember(experiment, runs, speed)
}

/// Simulates one rank. Its file is written to the runs directory, where checkpoints would go.
fn dry_run(experiment: &oss_config::Experiment, arguments: &Arguments, runs: &RunsDir) -> Result<DryRun> {
    let place = || format!("cannot write to {}", runs.root().display());
    let hint = "choose another directory with --runs-dir";
    std::fs::create_dir_all(runs.root()).with_context(place).hint(hint)?;
    let folder = tempfile::Builder::new()
        .prefix(".dry-run-")
        .tempdir_in(runs.root())
        .with_context(place)
        .hint(hint)?;
    // The lock keeps `oss-run gc` from removing it.
    let _held = FileLock::try_directory(folder.path()).with_context(place).hint(hint)?;
    let mut experiment = experiment.clone();
    if experiment.sharding.strategy == oss_config::Strategy::Hsdp {
        experiment.sharding.shard_degree = Some(Mesh::of(&experiment.sharding).shards);
    }
    train::dry_run(&experiment, arguments.rank, arguments.steps, folder.path())
}

/// Prepared token counts; nothing unless everything is prepared.
#[derive(Clone, Debug, Default)]
struct Tokens {
    sources: Vec<SourceTokens>,
    validation: Option<u64>,
}

impl Tokens {
    fn of(graph: &Graph) -> Self {
        let open = |key: &plan::keys::Key| Prepared::open(&graph.runs.prepared(&key.0)).ok();
        let sources: Option<Vec<Prepared>> =
            graph.corpus().prepared_sources().ok().and_then(|keys| keys.iter().map(open).collect());
        let held: Option<Vec<Prepared>> = match graph.corpus().prepared_validation() {
            Ok(Some(own)) => open(&own).map(|own| vec![own]),
            _ => sources.clone(),
        };
        let weights: f64 = graph.inputs.sources.iter().map(|source| source.weight).sum();
        let tokens = |(source, prepared): (&Source, &Prepared)| SourceTokens {
            name: source.name.clone(),
            share: source.weight / weights,
            tokens: prepared.index().train.tokens,
        };
        Self {
            sources: sources
                .map_or_else(Vec::new, |all| graph.inputs.sources.iter().zip(&all).map(tokens).collect()),
            validation: held.map(|all| all.iter().map(|prepared| prepared.index().validation.tokens).sum()),
        }
    }
}

impl Tokens {
    /// Training tokens of all sources.
    fn training(&self) -> Option<u64> {
        (!self.sources.is_empty()).then(|| self.sources.iter().map(|source| source.tokens).sum())
    }
}

impl Plan {
    fn show(&self, explain: bool) -> String {
        let is_set = |value: &Explained| {
            let is_from_input = matches!(value.set_by, SetBy::Input { .. });
            (value.set_by.is_explicit() || is_from_input) && value.value.is_some()
        };
        let shown = self.values.iter().filter(|value| explain || is_set(value));
        let values: Vec<Vec<String>> = shown
            .map(|value| {
                let text = value.value.clone().unwrap_or_else(|| "-".to_owned());
                let set_by = match &value.set_by {
                    // `model.preset` has a line of its own.
                    SetBy::Preset { name, .. } => format!("preset {name}"),
                    set_by => set_by.to_string(),
                };
                vec![value.key.clone(), text, set_by]
            })
            .collect();
        let mut text = VALUES.to_terminal(&values);
        text.push('\n');
        text.push_str(&match &self.run {
            Some(run) if run.exists => {
                format!(
                    "run {} (step {} of {})\n",
                    run.directory.display(),
                    run.steps_taken,
                    self.experiment.train.steps
                )
            }
            Some(run) => format!("run {} (new)\n", run.directory.display()),
            None if self.experiment.train.epochs.is_some() => {
                "run unknown until prepared: train.epochs determines the number of steps then\n".to_owned()
            }
            None => {
                "run unknown until prepared: the dataset's commit on the hub is not known yet\n".to_owned()
            }
        });
        for PlannedStage { stage, freshness } in self.stages.iter().flatten() {
            text.push_str(&format!("  {stage:<10} {freshness}\n"));
        }
        text.push('\n');
        text.push_str(&self.costs());
        text
    }
}
