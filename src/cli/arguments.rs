//! What can be written on the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{
    completions, diff, doctor, evaluate, export, gc, help, init, inside, label, ls, plan, report, reproduce,
    resume, rm, run, sample, show, sweep,
};
use oss_runs::interrupt;
use oss_runs::run_dir::RunsDir;

/// One TOML file, from raw text to a gpt-oss model: prepare, train, evaluate, sample, export.
///
/// `oss-run EXPERIMENT.toml` is short for `oss-run run EXPERIMENT.toml`. RUN is a path, an id or a unique prefix of
/// one, a name (its newest run), or `last`. Exit status: 0 done, 1 the run failed, 2 the experiment or the command
/// line is wrong, 75 stopped on request.
#[derive(Debug, Parser)]
#[command(name = "oss-run", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What every subcommand understands.
#[derive(Debug, Args)]
pub struct Common {
    /// Directory of all runs
    #[arg(long, global = true, value_name = "D", default_value = "runs")]
    runs_dir: PathBuf,
    /// Say more; twice, everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say only what is wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

impl Common {
    pub(super) fn runs(&self) -> RunsDir {
        RunsDir::new(&self.runs_dir)
    }

    /// These options as they are written.
    pub(super) fn line(&self) -> Vec<OsString> {
        let mut line = vec!["--runs-dir".into(), self.runs_dir.clone().into()];
        line.extend((0..self.verbose).map(|_| "--verbose".into()));
        if self.quiet {
            line.push("--quiet".into());
        }
        line
    }

    pub(super) fn verbosity(&self) -> i8 {
        if self.quiet { -1 } else { i8::try_from(self.verbose).unwrap_or(i8::MAX) }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first experiment file, to be changed
    Init(init::Arguments),
    /// Run an experiment: every stage that is not fresh
    Run(run::Arguments),
    /// Run many trials of an experiment, as the [sweep] section of its file says
    ///
    /// Each trial is a run. The same command goes on with a sweep that was stopped or killed, runs what is new in one that
    /// has grown, and helps another process with one that is at work. docs/sweeps.md shows how the section is written.
    Sweep(sweep::Arguments),
    /// Show what a run would do, and what it costs
    Plan(plan::Arguments),
    /// Go on with a run that stopped
    Resume(resume::Arguments),
    /// Run a run again from its manifest and compare bit for bit
    ///
    /// It is made again under runs/.reproduced/, from its manifest alone: neither its experiment file nor the environment
    /// counts. Stopped, the same command goes on. Exit status: 0 identical, 1 different.
    Reproduce(reproduce::Arguments),
    /// Validation loss of a run's weights, or their loss on a text
    Evaluate(evaluate::Arguments),
    /// Let a run's weights continue a text
    Sample(sample::Arguments),
    /// Write a run's weights as a Hugging Face directory
    Export(export::Arguments),
    /// List runs: state, losses, times, labels, and whatever column is asked for
    ///
    /// A column is a fact (id, name, state, step, steps, started, duration, size, labels, notes, directory), a key of the
    /// experiment file (optimizer.lr), or a metric (val_loss, grad_norm), of which the last value counts. The newest run
    /// stands last.
    Ls(ls::Arguments),
    /// Show what a run is, what happened to it, and what it made
    Show(show::Arguments),
    /// Compare two runs: configuration, data, code, environment, metrics
    ///
    /// In this order: every value of the experiment; what was read, by digest; the program; the machine and its settings
    /// at the last start; what came out, and the first step with another loss. Speed is shown beside: it is measured, and
    /// never the same twice.
    Diff(diff::Arguments),
    /// Give a run labels and notes, or take them away
    ///
    /// What is given here stays when the experiment file is run again, whatever labels and notes that has; `--set
    /// run.labels.KEY=VALUE` replaces it.
    Label(label::Arguments),
    /// Remove runs
    ///
    /// Asks first. A run that is being written is not removed, nor one from whose weights another run started. Prepared
    /// data is shared, and stays until `oss-run gc`.
    Rm(rm::Arguments),
    /// Remove what no run needs: prepared data, and what killed processes left
    ///
    /// Prepared data and learnt tokenizers that no run names go once they are an hour old; so do unfinished files and
    /// checkpoints, dry runs, half-removed runs, and runs that never started. Runs stay with everything that they need, and
    /// may be at work meanwhile.
    Gc(gc::Arguments),
    /// Write one HTML file about runs: curves, samples, values, machines
    Report(report::Arguments),
    /// Print the tokens that training used, step by step
    Batches(inside::BatchesArguments),
    /// Print the logits after each token of a text
    Logits(inside::LogitsArguments),
    /// Print the JSON Schema of experiment files
    Schema,
    /// Check this machine: libtorch, devices, driver, memory, disk, tokenizer, TensorBoard, hub
    Doctor(doctor::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

/// Reads the command line; a wrong one ends the program with status 2.
pub fn parse() -> Cli {
    let matches = program().try_get_matches_from(spelt_out(std::env::args_os().collect()));
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).unwrap_or_else(|answer| {
        // Help and the version are answers of this kind, too. A closed stdout or stderr has nobody to be told.
        let _ = answer.print();
        interrupt::leave(answer.exit_code())
    })
}

/// The program's command line with its help as people read it.
pub(super) fn program() -> clap::Command {
    help::taught(Cli::command())
}

/// `oss-run EXPERIMENT.toml ...` with its `run` put in.
fn spelt_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_experiment = |word: &OsString| Path::new(word).extension().is_some_and(|end| end == "toml");
    if first_word(&arguments).is_some_and(is_experiment) {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// The first argument that is neither an option nor the value of one.
fn first_word(arguments: &[OsString]) -> Option<&OsString> {
    let program = Cli::command();
    let run = program.find_subcommand("run").into_iter().flat_map(clap::Command::get_arguments);
    let options: Vec<String> = program
        .get_arguments()
        .chain(run)
        .filter(|option| option.get_action().takes_values())
        .filter_map(|option| Some(format!("--{}", option.get_long()?)))
        .collect();
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if options.contains(&text.clone().into_owned()) {
            words.next();
        } else if !text.starts_with('-') {
            return Some(word);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        program().debug_assert();
    }

    #[test]
    fn an_experiment_alone_is_run() {
        for (short, long) in [
            ("oss-run a.toml", "oss-run run a.toml"),
            ("oss-run a.toml --set b=c", "oss-run run a.toml --set b=c"),
            ("oss-run --runs-dir d x/a.toml", "oss-run run --runs-dir d x/a.toml"),
            ("oss-run plan a.toml", "oss-run plan a.toml"),
            ("oss-run --runs-dir d plan a.toml", "oss-run --runs-dir d plan a.toml"),
            ("oss-run sample last --prompt run.toml", "oss-run sample last --prompt run.toml"),
            ("oss-run --set b=c.toml a.toml", "oss-run run --set b=c.toml a.toml"),
            ("oss-run pln a.toml", "oss-run pln a.toml"),
            ("oss-run", "oss-run"),
        ] {
            assert_eq!(spelt_out(words(short)), words(long), "{short}");
        }
    }

    #[test]
    fn options_may_stand_before_and_behind() {
        for line in ["oss-run --runs-dir d plan a.toml", "oss-run plan a.toml --runs-dir d"] {
            let cli = Cli::try_parse_from(words(line)).unwrap();
            assert_eq!(cli.common.runs().root(), Path::new("d"));
        }
    }
}
