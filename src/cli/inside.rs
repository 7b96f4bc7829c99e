//! `oss-run batches` and `oss-run logits`: the inside of a run, for checks that repeat it with other programs.

use anyhow::Result;
use clap::Args;

use super::output::print_json;
use crate::runner::trained::Trained;
use oss_config::error::UserError;
use oss_runs::run_dir::RunsDir;

/// What `batches` takes.
#[derive(Debug, Args)]
pub struct BatchesArguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// The batches that lead from step A to step B
    #[arg(long, value_name = "A..B")]
    steps: String,
    /// Print one JSON document (there is no other form)
    #[arg(long)]
    json: bool,
}

/// What `logits` takes.
#[derive(Debug, Args)]
pub struct LogitsArguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// The checkpoint; the newest unless given
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// The text
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Print one JSON document (there is no other form)
    #[arg(long)]
    json: bool,
}

/// Prints the tokens that training used.
pub fn batches(arguments: &BatchesArguments, runs: &RunsDir) -> Result<()> {
    let range = arguments.steps.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    let Some(range) = range else {
        return Err(UserError::wrong(format!("--steps {} is no range", arguments.steps))
            .hint("write it as 0..50")
            .into());
    };
    print_json(&Trained::open(&runs.resolve(&arguments.run)?, None)?.batches(range)?)
}

/// Prints the logits after each token of a text.
pub fn logits(arguments: &LogitsArguments, runs: &RunsDir) -> Result<()> {
    print_json(&Trained::open(&runs.resolve(&arguments.run)?, arguments.step)?.logits(&arguments.prompt)?)
}
