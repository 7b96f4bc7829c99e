//! `oss-run resume`: resume a run from its manifest.

use anyhow::Result;
use clap::Args;

use super::completions;
use super::ranks::{Task, led};
use super::run::finish;
use crate::plan::{Choices, Stage};
use crate::runner::{Execution, Options, Resuming};
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run resume`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Override a value that does not affect steps already taken, such as train.steps=2000
    #[arg(long, value_name = "KEY=VALUE", add = completions::overrides())]
    set: Vec<String>,
    /// Stop after this stage
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = Stage::Export, hide_default_value = true)]
    until: Stage,
    /// Stop training after step N without changing the schedule
    #[arg(long, value_name = "N")]
    stop_at_step: Option<u64>,
    /// Train even if memory or disk space seems insufficient
    #[arg(long)]
    force_start: bool,
    /// Print the outcome as one JSON document
    #[arg(long)]
    json: bool,
}

/// Resumes the run.
pub fn resume(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let run = runs.resolve(&arguments.run)?;
    let choices = Choices { until: arguments.until, ..Choices::default() };
    let Arguments { stop_at_step, force_start, .. } = *arguments;
    let options = Options { choices, stop_at_step, force_start };
    let resuming = Resuming::load(&run, &arguments.set)?;
    let experiment = resuming.experiment().clone();
    // `last` may resolve to another run by the time another rank looks.
    let same = (arguments, run.root());
    let task = Task { experiment: &experiment, arguments: &same, resumed: None };
    let ended = led(&task, || resuming.execution(options), Execution::has_work, Execution::run)?;
    ended.map_or(Ok(()), |summary| finish(&summary, arguments.json))
}
