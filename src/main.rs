//! The program: read the command line, do it, end with a status that says how it went.

use std::process::ExitCode;

use oss_run::cli;

fn main() -> ExitCode {
    let arguments = cli::parse();
    let status = cli::guarded(|| cli::dispatch(arguments));
    status.code()
}
