//! `oss-run reproduce`: a run again, bit for bit.

use std::env;

use anyhow::{Result, bail};
use clap::Args;

use super::output::{print, print_json};
use super::ranks::{Task, led};
use crate::runner::{Extent, Reproduction};
use oss_runs::run_dir::RunsDir;
use oss_train::distributed::is_launched;

/// What it takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// Run and compare only the first N steps
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Run it once more, although it was reproduced before
    #[arg(long)]
    new: bool,
    /// Print what was compared as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the run again and compares.
pub fn reproduce(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let run = runs.resolve(&arguments.run)?;
    let extent = Extent { steps: arguments.steps, new: arguments.new };
    let reproduction = Reproduction::of(&run, extent)?;
    // The launcher tells it for all ranks.
    let is_told = is_launched(&|name| env::var(name).ok());
    for difference in reproduction.differences().into_iter().filter(|_| !is_told) {
        match difference.changes_bits {
            true => tracing::warn!("not as it was: {difference}"),
            false => tracing::info!("not as it was: {difference}"),
        }
    }
    let experiment = reproduction.experiment().clone();
    let same = (arguments, run.root());
    let task = Task { experiment: &experiment, arguments: &same, resumed: None };
    let ended = led(&task, || Ok(reproduction), Reproduction::has_work, Reproduction::run)?;
    let Some(reproduced) = ended else { return Ok(()) };
    match arguments.json {
        true => print_json(&reproduced)?,
        false => print(&format!("{reproduced}\n"))?,
    }
    if !reproduced.identical {
        bail!("the reproduction {} differs, as shown above", reproduced.reproduction.display());
    }
    Ok(())
}
