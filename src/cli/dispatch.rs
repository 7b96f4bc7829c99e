//! From the parsed command line to the subcommand.

use anyhow::{Context, Result};

use super::arguments::{Cli, Command};
use super::{
    completions, diff, doctor, evaluate, export, gc, init, inspect, label, ls, plan, report, reproduce,
    resume, rm, run, sample, schema, show, sweep,
};
use oss_runs::monitor::Verbosity;
use oss_runs::{interrupt, monitor};
use oss_train::distributed::RankEnv;

/// Runs the requested command.
///
/// # Errors
/// Those of the subcommand; [`Status::of`](oss_config::error::Status::of) maps them to exit statuses.
pub fn dispatch(cli: Cli) -> Result<()> {
    let Cli { command, common } = cli;
    // Invalid rank variables are reported later, where they are used.
    let rank_env = RankEnv::from_env(&|name| std::env::var(name).ok()).ok().flatten();
    let verbosity = match rank_env {
        // Only rank 0 reports progress.
        Some(rank_env) if rank_env.rank > 0 => common.verbosity().min(Verbosity::Warnings),
        _ => common.verbosity(),
    };
    monitor::init_logging(verbosity, None).context("cannot initialize logging")?;
    interrupt::install().context("cannot install signal handlers")?;
    let runs = common.runs();
    match command {
        Command::Init(arguments) => init::init(&arguments),
        Command::Run(arguments) => run::run(&arguments, &common),
        Command::Sweep(arguments) => sweep::sweep(&arguments, &common),
        Command::Plan(arguments) => plan::plan(&arguments, &runs),
        Command::Resume(arguments) => resume::resume(&arguments, &runs),
        Command::Reproduce(arguments) => reproduce::reproduce(&arguments, &runs),
        Command::Evaluate(arguments) => evaluate::evaluate(&arguments, &runs),
        Command::Sample(arguments) => sample::sample(&arguments, &runs),
        Command::Export(arguments) => export::export(&arguments, &runs),
        Command::Ls(arguments) => ls::ls(&arguments, &runs),
        Command::Show(arguments) => show::show(&arguments, &runs),
        Command::Diff(arguments) => diff::diff(&arguments, &runs),
        Command::Label(arguments) => label::label(&arguments, &runs),
        Command::Rm(arguments) => rm::rm(&arguments, &runs),
        Command::Gc(arguments) => gc::gc(&arguments, &runs),
        Command::Report(arguments) => report::report(&arguments, &runs),
        Command::Batches(arguments) => inspect::batches(&arguments, &runs),
        Command::Logits(arguments) => inspect::logits(&arguments, &runs),
        Command::Schema => schema::schema(),
        Command::Doctor(arguments) => doctor::doctor(&arguments, &runs),
        Command::Completions(arguments) => completions::completions(&arguments),
    }
}
