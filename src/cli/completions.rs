//! `oss-run completions`: completion scripts.

use anyhow::Result;
use clap::Args;

use super::arguments::program;
use super::output::print;

/// Arguments of `oss-run completions`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Shell to generate the script for
    shell: clap_complete::Shell,
}

/// Prints the script for one shell.
pub fn completions(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program(), "oss-run", &mut script);
    print(&String::from_utf8_lossy(&script))
}
