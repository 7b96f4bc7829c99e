//! The command line: one thin file a subcommand.

mod arguments;
mod completions;
mod diff;
mod doctor;
mod evaluate;
mod export;
mod failure;
mod gc;
mod help;
mod init;
mod inside;
mod label;
mod launch;
mod ls;
mod output;
mod plan;
mod ranks;
mod report;
mod reproduce;
mod resume;
mod rm;
mod run;
mod sample;
mod schema;
mod show;
mod sweep;
mod table;
mod words;

pub use arguments::{Cli, parse};
pub use failure::guarded;

use anyhow::{Context, Result};

use arguments::Command;
use oss_runs::interrupt;
use oss_runs::monitor;
use oss_train::distributed::Placement;

/// Does what the command line asks.
///
/// # Errors
/// Whatever the subcommand meets; [`Status::of`](oss_config::error::Status::of) says which exit status it deserves.
pub fn dispatch(cli: Cli) -> Result<()> {
    let Cli { command, common } = cli;
    // One rank speaks for all; what is wrong with the variables that say so is told where they matter.
    let placement = Placement::of(&|name| std::env::var(name).ok()).ok().flatten();
    let verbosity =
        if placement.is_some_and(|placement| placement.rank > 0) { -1 } else { common.verbosity() };
    monitor::init_logging(verbosity, None).context("cannot start logging")?;
    interrupt::install().context("cannot listen to signals")?;
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
        Command::Batches(arguments) => inside::batches(&arguments, &runs),
        Command::Logits(arguments) => inside::logits(&arguments, &runs),
        Command::Schema => schema::schema(),
        Command::Doctor(arguments) => doctor::doctor(&arguments, &runs),
        Command::Completions(arguments) => completions::completions(&arguments),
    }
}
