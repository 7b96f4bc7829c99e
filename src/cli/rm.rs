//! `oss-run rm`: runs go.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::output::print_json;
use super::words;
use crate::runs::remove::{Removable, removable};
use oss_config::error::{Hint, UserError};
use oss_runs::run_dir::{RunDir, RunsDir};

/// What it takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The runs: paths, ids or starts of them, names, or `last`
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Remove even a run from whose weights another one started
    #[arg(long)]
    force: bool,
    /// Print what was removed as one JSON document
    #[arg(long)]
    json: bool,
}

/// Removes the runs, all of them or, where one of them must stay, none.
pub fn rm(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let mut targets: Vec<RunDir> = Vec::new();
    for asked in &arguments.runs {
        let run = runs.resolve(asked)?;
        let place = |run: &RunDir| run.root().canonicalize().ok();
        if targets.iter().all(|other| place(other) != place(&run)) {
            targets.push(run);
        }
    }
    let going = removable(&targets, arguments.force)?;
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
    tracing::info!("removed; {} are free again", words::bytes(bytes));
    Ok(())
}

fn describe(run: &Removable) -> String {
    let Removable { directory, status, step, bytes, .. } = run;
    format!("{}: {}, {step} steps, {}", directory.display(), status.word(), words::bytes(*bytes))
}

/// Asks whoever sits at the terminal.
fn confirmed(runs: usize) -> Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UserError::wrong("nobody is there to be asked whether to remove this")
            .hint("give --yes")
            .into());
    }
    let what = if runs == 1 { "this run".to_owned() } else { format!("these {runs} runs") };
    eprint!("remove {what} for good? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer").hint("give --yes")?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
