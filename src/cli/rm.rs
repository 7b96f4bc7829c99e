//! `oss-run rm`: remove runs.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::completions;
use super::format;
use super::output::print_json;
use crate::runs::remove::{Removable, removable};
use crate::runs::select::select;
use oss_config::error::{Hint, UserError};
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run rm`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Runs to remove: paths, ids (or unique prefixes), names, `last`, or patterns such as 'mine/*'
    #[arg(value_name = "RUN", add = completions::runs(), required = true)]
    runs: Vec<String>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
    /// Remove runs even if their weights initialized another run
    #[arg(long)]
    force: bool,
    /// Print the removed runs as one JSON document
    #[arg(long)]
    json: bool,
}

/// Removes all of the runs, or none if one of them must be kept.
pub fn rm(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let going = removable(&select(runs, &arguments.runs)?, arguments.force)?;
    for run in &going {
        tracing::info!("{}", describe(run));
    }
    if !arguments.yes && !confirmed(going.len())? {
        tracing::info!("nothing was removed");
        return Ok(());
    }
    let document = json!({ "removed": going });
    let bytes: u64 = going.iter().map(|run| run.bytes).sum();
    going.into_iter().try_for_each(Removable::remove)?;
    if arguments.json {
        return print_json(&document);
    }
    tracing::info!("removed; {} freed", format::bytes(bytes));
    Ok(())
}

fn describe(run: &Removable) -> String {
    let Removable { directory, status, step, bytes, .. } = run;
    format!("{}: {}, {step} steps, {}", directory.display(), status.word(), format::bytes(*bytes))
}

/// Asks for confirmation on the terminal.
fn confirmed(runs: usize) -> Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UserError::wrong("cannot ask for confirmation: not a terminal")
            .hint("pass --yes")
            .into());
    }
    let what = if runs == 1 { "this run".to_owned() } else { format!("these {runs} runs") };
    eprint!("permanently remove {what}? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer").hint("pass --yes")?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
