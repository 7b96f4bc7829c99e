//! The program: parse the command line, run the command, exit with a status code.

use oss_run::cli;
use oss_runs::interrupt;

fn main() {
    let arguments = cli::parse();
    let status = cli::guarded(|| cli::dispatch(arguments));
    interrupt::leave(status.code());
}
