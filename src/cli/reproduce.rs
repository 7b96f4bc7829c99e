//! `oss-run reproduce`: repeat a run and compare bit for bit.

use std::env;

use anyhow::{Result, bail};
use clap::Args;

use super::completions;
use super::output::{print, print_json};
use super::ranks::{Task, led};
use crate::runner::{Extent, Reproduction};
use oss_runs::run_dir::RunsDir;
use oss_train::distributed::is_launched;

/// Arguments of `oss-run reproduce`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Run and compare only the first N steps
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Start over, even if the run was reproduced before
    #[arg(long)]
    new: bool,
    /// Print the comparison as one JSON document
    #[arg(long)]
    json: bool,
}

/// Repeats the run and compares.
pub fn reproduce(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let run = runs.resolve(&arguments.run)?;
    let extent = Extent { steps: arguments.steps, new: arguments.new };
    let reproduction = Reproduction::load(&run, extent)?;
    // The launcher reports for all ranks.
    let is_launched_rank = is_launched(&|name| env::var(name).ok());
    for difference in reproduction.differences().into_iter().filter(|_| !is_launched_rank) {
        match difference.changes_bits {
            true => tracing::warn!("differs from the original run: {difference}"),
            false => tracing::info!("differs from the original run: {difference}"),
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
        bail!("reproduction {} differs from the original, as shown above", reproduced.reproduction.display());
    }
    Ok(())
}
