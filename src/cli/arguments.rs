//! Command-line arguments.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{
    completions, diff, doctor, evaluate, export, gc, help, init, inspect, label, ls, plan, report, reproduce,
    resume, rm, run, sample, show, sweep,
};
use oss_runs::interrupt;
use oss_runs::monitor::Verbosity;
use oss_runs::run_dir::RunsDir;

/// The colors of the program's other messages: see [`monitor::colored`](oss_runs::monitor::colored).
const STYLES: Styles = Styles::styled()
    .error(AnsiColor::Red.on_default().bold())
    .valid(AnsiColor::Cyan.on_default())
    .invalid(AnsiColor::Yellow.on_default());

/// One TOML file, from raw text to a gpt-oss model: prepare, train, evaluate, sample, export.
///
/// `oss-run EXPERIMENT.toml` is short for `oss-run run EXPERIMENT.toml`. RUN is a path, an id or a unique prefix of
/// one, a name (its newest run), name/id, or `last`. Exit status: 0 on success, 1 if the run failed, 2 if the
/// experiment or the command line is invalid, 75 if stopped on request.
#[derive(Debug, Parser)]
#[command(name = "oss-run", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(styles = STYLES)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
pub struct Common {
    /// Directory that holds all runs
    #[arg(long, global = true, value_name = "DIR", env = "OSS_RUN_RUNS_DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Print more: -v details, -vv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print only results and errors: no progress, no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

impl Common {
    pub(super) fn runs(&self) -> RunsDir {
        RunsDir::new(&self.runs_dir)
    }

    /// These options as command-line arguments.
    pub(super) fn line(&self) -> Vec<OsString> {
        let mut line = vec!["--runs-dir".into(), self.runs_dir.clone().into()];
        line.extend((0..self.verbose).map(|_| "--verbose".into()));
        if self.quiet {
            line.push("--quiet".into());
        }
        line
    }

    pub(super) fn verbosity(&self) -> Verbosity {
        match self.verbose {
            _ if self.quiet => Verbosity::Errors,
            0 => Verbosity::Info,
            1 => Verbosity::Debug,
            _ => Verbosity::Trace,
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an experiment file from a template
    Init(init::Arguments),
    /// Run an experiment, skipping stages that are up to date
    Run(run::Arguments),
    /// Run the trials of a hyperparameter sweep
    ///
    /// The [sweep] section of the experiment file defines the trials. Each trial is a run. Running the same command
    /// again resumes a sweep that was stopped or killed, runs trials added since, and joins a sweep that another
    /// process is running. See docs/sweeps.md.
    Sweep(sweep::Arguments),
    /// Show what a run would do and what it would cost
    Plan(plan::Arguments),
    /// Resume a stopped or interrupted run
    Resume(resume::Arguments),
    /// Repeat a run from its manifest and compare the results bit for bit
    ///
    /// The reproduction is written under runs/.reproduced/. It uses only the manifest: the experiment file and
    /// environment variables are ignored. If stopped, the same command resumes it. Exit status: 0 if identical, 1 if
    /// different.
    Reproduce(reproduce::Arguments),
    /// Compute a run's loss on its validation set or on a text file
    Evaluate(evaluate::Arguments),
    /// Generate text with a run's weights
    Sample(sample::Arguments),
    /// Export a run's weights as a Hugging Face model directory
    Export(export::Arguments),
    /// List runs with their state, losses, times and labels
    ///
    /// A column is a property of the run (id, name, state, step, steps, started, duration, size, labels, notes,
    /// directory), a key of the experiment file (optimizer.lr), or a metric (val_loss, grad_norm), shown with its last
    /// value. The newest run comes last.
    Ls(ls::Arguments),
    /// Show a run's configuration, history and outputs
    Show(show::Arguments),
    /// Compare two runs: configuration, data, code, environment, metrics
    ///
    /// Compares, in this order: every value of the experiment; the input data, by digest; the program; the machine and
    /// its settings at the last start; and the results, with the first step at which the losses differ. Throughput is
    /// shown for information only, since it is never the same twice.
    Diff(diff::Arguments),
    /// Show, set or remove a run's labels and notes
    ///
    /// Labels and notes set here are kept when the experiment file runs again, even if the file sets other ones. `--set
    /// run.labels.KEY=VALUE` overrides them.
    Label(label::Arguments),
    /// Remove runs
    ///
    /// Asks for confirmation first. Refuses to remove a run that is in progress, or one whose weights initialized
    /// another run. Prepared data is shared between runs; use `oss-run gc` to remove it.
    Rm(rm::Arguments),
    /// Remove unused prepared data and leftovers of killed processes
    ///
    /// Removes, once they are an hour old: prepared data and trained tokenizers that no run references, unfinished
    /// files and checkpoints, dry runs, partly removed runs, and runs that never started. Runs and everything they need
    /// are kept. It is safe to use while runs are in progress.
    Gc(gc::Arguments),
    /// Write an HTML report on runs or a sweep
    Report(report::Arguments),
    /// Print the batches of tokens used in training
    Batches(inspect::BatchesArguments),
    /// Print the logits at each position of a prompt
    Logits(inspect::LogitsArguments),
    /// Print the JSON Schema of experiment files
    Schema,
    /// Check this machine: libtorch, GPUs, memory, disk, tokenizer, TensorBoard, hub
    Doctor(doctor::Arguments),
    /// Print a shell completion script
    Completions(completions::Arguments),
}

/// Parses the command line; exits with status 2 if it is invalid. Answers the requests of a completion script.
pub fn parse() -> Cli {
    match completions::answered() {
        Ok(false) => {}
        Ok(true) => interrupt::leave(0),
        Err(error) => {
            let _ = error.print();
            interrupt::leave(error.exit_code());
        }
    }
    let matches = program().try_get_matches_from(expand_shorthand(std::env::args_os().collect()));
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).unwrap_or_else(|answer| {
        // Help and version output arrive here, too. Nothing can be reported if stdout or stderr is closed.
        let _ = answer.print();
        interrupt::leave(answer.exit_code())
    })
}

/// The clap command with the grouped help.
pub(super) fn program() -> clap::Command {
    help::with_help(Cli::command())
}

/// Expands `oss-run EXPERIMENT.toml ...` to `oss-run run EXPERIMENT.toml ...`.
fn expand_shorthand(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if is_shorthand(&arguments) {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// Whether the command is left out, so that the first word is an experiment file. `run` says what is wrong with files
/// in other formats.
pub(super) fn is_shorthand(arguments: &[OsString]) -> bool {
    let is_experiment = |word: &OsString| {
        let extension = Path::new(word).extension().and_then(OsStr::to_str);
        extension.is_some_and(|extension| ["toml", "yaml", "yml", "json"].contains(&extension))
    };
    first_word(arguments).is_some_and(is_experiment)
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
    fn a_bare_experiment_file_expands_to_run() {
        for (short, long) in [
            ("oss-run a.toml", "oss-run run a.toml"),
            ("oss-run a.toml --set b=c", "oss-run run a.toml --set b=c"),
            ("oss-run --runs-dir d x/a.toml", "oss-run run --runs-dir d x/a.toml"),
            ("oss-run plan a.toml", "oss-run plan a.toml"),
            ("oss-run --runs-dir d plan a.toml", "oss-run --runs-dir d plan a.toml"),
            ("oss-run sample last --prompt run.toml", "oss-run sample last --prompt run.toml"),
            ("oss-run --set b=c.toml a.toml", "oss-run run --set b=c.toml a.toml"),
            ("oss-run pln a.toml", "oss-run pln a.toml"),
            ("oss-run a.yaml", "oss-run run a.yaml"),
            ("oss-run", "oss-run"),
        ] {
            assert_eq!(expand_shorthand(words(short)), words(long), "{short}");
        }
    }

    #[test]
    fn global_options_may_come_before_or_after_the_command() {
        for line in ["oss-run --runs-dir d plan a.toml", "oss-run plan a.toml --runs-dir d"] {
            let cli = Cli::try_parse_from(words(line)).unwrap();
            assert_eq!(cli.common.runs().root(), Path::new("d"));
        }
    }
}
