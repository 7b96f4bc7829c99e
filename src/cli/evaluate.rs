//! `oss-run evaluate`: the loss of a run's weights, on its validation text or on another.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::output::{print, print_json};
use super::ranks::{Task, on_ranks};
use crate::runner::trained::Trained;
use crate::stages::evaluate::Report;
use oss_runs::run_dir::RunsDir;

/// What it takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// The checkpoint; the newest unless given
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Ranks that share the weights; as many as trained them unless given
    #[arg(long, value_name = "N")]
    ranks: Option<u64>,
    /// A text file to score instead of the validation text
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Scores the text and prints the result; the run stays as it is.
pub fn evaluate(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let mut trained = Trained::open(&runs.resolve(&arguments.run)?, arguments.step)?;
    if let Some(ranks) = arguments.ranks {
        trained.share_among(ranks);
    }
    let experiment = trained.experiment().clone();
    // A run that trains may have a newer checkpoint by the time another rank looks.
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

fn describe(report: &Report) -> String {
    let Report { step, nats_per_byte, bits_per_byte, evaluation, .. } = report;
    format!(
        "step {step}: {:.6} nats a token (perplexity {:.4}), {nats_per_byte:.6} nats a byte, {bits_per_byte:.6} bits a \
         byte, over {} tokens; {} dead experts, the busiest at {:.2} x uniform\n",
        evaluation.loss,
        evaluation.perplexity,
        evaluation.tokens,
        evaluation.dead_experts,
        evaluation.max_load
    )
}
