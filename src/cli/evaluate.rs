//! `oss-run evaluate`: the loss of a run's weights on its validation set or on a text file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::completions;
use super::output::{print, print_json};
use super::ranks::{Task, on_ranks};
use crate::runner::loaded_run::Trained;
use crate::stages::evaluate::Report;
use oss_config::error::UserError;
use oss_config::{Wanted, url_problem};
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run evaluate`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Step of the checkpoint [default: the newest]
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Number of ranks to shard the weights over [default: as in training]
    #[arg(long, value_name = "N")]
    ranks: Option<u64>,
    /// Text to evaluate on instead of the validation set: a file, a directory or a glob pattern
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Evaluates and prints the result; the run is not modified.
pub fn evaluate(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    if let Some(data) = &arguments.data {
        check_data(&data.display().to_string())?;
    }
    let mut trained = Trained::open(&runs.resolve(&arguments.run)?, arguments.step)?;
    if let Some(ranks) = arguments.ranks {
        trained.share_among(ranks);
    }
    let experiment = trained.experiment().clone();
    // A run in progress may write a newer checkpoint before another rank looks.
    let same = (arguments, trained.checkpoint_path().to_owned());
    let task = Task { experiment: &experiment, arguments: &same, resumed: None };
    on_ranks(&task, |world| {
        let report = match &arguments.data {
            Some(file) => trained.evaluate_file(file, world)?,
            None => trained.evaluate(world)?,
        };
        match (world.is_leader(), arguments.json) {
            (false, _) => Ok(()),
            (true, true) => print_json(&report),
            (true, false) => print(&describe(&report)),
        }
    })
}

/// `--data` takes what `dataset.files` takes: a file, a folder or a glob pattern.
fn check_data(data: &str) -> Result<(), UserError> {
    if let Some((message, fix)) = url_problem(data, Wanted::Text) {
        return Err(UserError::wrong(message).hint(fix));
    }
    let is_pattern = data.contains(['*', '?', '[']);
    if !is_pattern && !Path::new(data).exists() {
        let hint = "pass the path of a text file, or leave out --data to evaluate on the validation set";
        return Err(UserError::wrong(format!("no file {data}")).hint(hint));
    }
    Ok(())
}

fn describe(report: &Report) -> String {
    let Report { step, nats_per_byte, bits_per_byte, evaluation, .. } = report;
    format!(
        "step {step}: {:.6} nats per token (perplexity {:.4}), {nats_per_byte:.6} nats per byte, \
         {bits_per_byte:.6} bits per byte, over {} tokens; {} dead experts, maximum load {:.2} x uniform\n",
        evaluation.loss,
        evaluation.perplexity,
        evaluation.tokens,
        evaluation.dead_experts,
        evaluation.max_load
    )
}
