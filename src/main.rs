//! The program: read the command line, do it, end with a status that says how it went.

use oss_run::cli;
use oss_runs::interrupt;

fn main() {
    let arguments = cli::parse();
    let status = cli::guarded(|| cli::dispatch(arguments));
    interrupt::leave(status.code());
}
