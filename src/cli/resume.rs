//! `oss-run resume`: a run goes on, from its manifest alone.

use anyhow::Result;
use clap::Args;

use super::ranks::{Task, on_ranks};
use super::run::finish;
use crate::plan::Stage;
use crate::run_dir::RunsDir;
use crate::runner::{self, Options};

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
    let options =
        Options { until: arguments.until, stop_at_step: arguments.stop_at_step, ..Options::default() };
    let resuming = runner::Resuming::of(&run, &arguments.set)?;
    let has_work = || resuming.has_work(&options);
    // `last` may mean another run by the time another rank looks.
    let same = (arguments, run.root());
    let task =
        Task { experiment: resuming.experiment(), arguments: &same, has_work: &has_work, resumed: None };
    on_ranks(&task, |world| {
        if !world.is_leader() {
            return runner::follow(world);
        }
        let summary = runner::dismiss(runner::resume(&resuming, &options, world), world)?;
        finish(&summary, arguments.json)
    })
}
