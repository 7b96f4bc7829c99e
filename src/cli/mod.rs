//! The command line: one thin file per subcommand.

mod arguments;
mod completions;
mod diff;
mod dispatch;
mod doctor;
mod evaluate;
mod export;
mod failure;
mod format;
mod gc;
mod help;
mod init;
mod inspect;
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

pub use arguments::{Cli, parse};
pub use dispatch::dispatch;
pub use failure::guarded;
