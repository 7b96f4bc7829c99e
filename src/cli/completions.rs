//! `oss-run completions`: completion scripts, and the answers to the shells that run them.
//!
//! A script asks the program itself, so runs, experiment files and keys are completed, too.

mod shells;
mod values;

use std::env;
use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::{Arg, Args, Command};
use clap_complete::CompleteEnv;
use clap_complete::env::{Elvish, Fish, Powershell, Shells};

use super::arguments::{is_shorthand, program};
use super::output::print;
use shells::{BASH, ZSH};

pub use values::{columns, experiments, keys, overrides, runs, sweeps};

/// The variable that a completion script sets to the name of its shell.
const VARIABLE: &str = "_OSS_RUN_COMPLETE";

const SHELLS: Shells<'static> = Shells(&[&BASH, &Elvish, &Fish, &Powershell, &ZSH]);

/// Arguments of `oss-run completions`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Shell to generate the script for
    shell: clap_complete::Shell,
}

/// Prints the script for one shell. It calls the program by the path by which it was called itself.
pub fn completions(arguments: &Arguments) -> Result<()> {
    let shell = SHELLS.completer(&arguments.shell.to_string()).context("this shell has no completions")?;
    let typed = env::args().next().unwrap_or_else(|| "oss-run".to_owned());
    let completer = match typed.contains('/') {
        true => env::current_dir().context("cannot find the working directory")?.join(typed),
        false => typed.into(),
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "oss-run", "oss-run", &completer.to_string_lossy(), &mut script)?;
    print(&String::from_utf8_lossy(&script))
}

/// Whether a completion script called this program; its request has then been answered.
///
/// # Errors
/// There is nothing to complete, or the shell is unknown.
pub fn answered() -> clap::error::Result<bool> {
    let here = env::current_dir().ok();
    CompleteEnv::with_factory(completed)
        .var(VARIABLE)
        .shells(SHELLS)
        .try_complete(env::args_os(), here.as_deref())
}

/// The command to complete: the whole program, or `run` if its name is left out.
fn completed() -> Command {
    let mut program = program();
    if is_shorthand(&words()) {
        // The options of every command become its own.
        program.build();
        if let Some(run) = program.find_subcommand("run") {
            return run.clone();
        }
    }
    program.arg(Arg::new("file").value_name("EXPERIMENT.toml").add(experiments()))
}

/// The words of the line to complete, from the program's name to the word at the cursor.
fn words() -> Vec<OsString> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1).collect();
    shells::joined(words).0
}
