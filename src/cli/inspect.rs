//! `oss-run batches` and `oss-run logits`: internals of a run, to check it against other implementations.

use anyhow::Result;
use clap::Args;

use super::completions;
use super::output::print_json;
use crate::runner::loaded_run::Trained;
use oss_config::error::UserError;
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run batches`.
#[derive(Debug, Args)]
pub struct BatchesArguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Range of steps: the batches that take training from step A to step B
    #[arg(long, value_name = "A..B")]
    steps: String,
    /// Print one JSON document (the only output format)
    #[arg(long)]
    json: bool,
}

/// Arguments of `oss-run logits`.
#[derive(Debug, Args)]
pub struct LogitsArguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Step of the checkpoint [default: the newest]
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Prompt
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Print one JSON document (the only output format)
    #[arg(long)]
    json: bool,
}

/// Prints the tokens that training used.
pub fn batches(arguments: &BatchesArguments, runs: &RunsDir) -> Result<()> {
    let range = arguments.steps.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    let Some(range) = range else {
        return Err(UserError::wrong(format!("invalid range `{}` for --steps", arguments.steps))
            .hint("write a range such as 0..50")
            .into());
    };
    print_json(&Trained::open(&runs.resolve(&arguments.run)?, None)?.batches(range)?)
}

/// Prints the logits at each position of a prompt.
pub fn logits(arguments: &LogitsArguments, runs: &RunsDir) -> Result<()> {
    print_json(&Trained::open(&runs.resolve(&arguments.run)?, arguments.step)?.logits(&arguments.prompt)?)
}
