//! `oss-run resume`: a run goes on, from its manifest alone.

use anyhow::Result;
use clap::Args;

use super::ranks::{Task, led};
use super::run::finish;
use crate::plan::{Choices, Stage};
use crate::runner::{Execution, Options, Resuming};
use oss_runs::run_dir::RunsDir;

/// What it takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// Change a value that leaves the trajectory alone: train.steps=2000
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Stop after this stage
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = Stage::Export, hide_default_value = true)]
    until: Stage,
    /// Pause training after step N, without touching the schedule
    #[arg(long, value_name = "N")]
    stop_at_step: Option<u64>,
    /// Print how it ended as one JSON document
    #[arg(long)]
    json: bool,
}

/// Goes on with the run.
pub fn resume(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let run = runs.resolve(&arguments.run)?;
    let choices = Choices { until: arguments.until, ..Choices::default() };
    let options = Options { choices, stop_at_step: arguments.stop_at_step };
    let resuming = Resuming::of(&run, &arguments.set)?;
    let experiment = resuming.experiment().clone();
    // `last` may mean another run by the time another rank looks.
    let same = (arguments, run.root());
    let task = Task { experiment: &experiment, arguments: &same, resumed: None };
    let ended = led(&task, || resuming.execution(options), Execution::has_work, Execution::run)?;
    ended.map_or(Ok(()), |summary| finish(&summary, arguments.json))
}
