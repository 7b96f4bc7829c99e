//! `oss-run gc`: remove unused files.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::format;
use super::output::{print, print_json};
use super::table::table;
use crate::runs::garbage::{self, Garbage};
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run gc`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print the removed files as one JSON document
    #[arg(long)]
    json: bool,
}

/// Removes unused files and prints them.
pub fn gc(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let collected = garbage::collect(runs, !arguments.dry_run)?;
    for why in &collected.kept {
        tracing::warn!("{why}");
    }
    let bytes = collected.bytes();
    if arguments.json {
        return print_json(&json!({
            "dry_run": arguments.dry_run,
            "bytes": bytes,
            "garbage": collected.garbage,
            "kept": collected.kept,
        }));
    }
    if collected.garbage.is_empty() {
        tracing::info!("nothing to remove in {}", runs.root().display());
        return Ok(());
    }
    let row = |garbage: &Garbage| {
        vec![format::bytes(garbage.bytes), garbage.what.to_owned(), garbage.path.display().to_string()]
    };
    let rows: Vec<Vec<String>> = collected.garbage.iter().map(row).collect();
    print(&table(&rows, &[0]))?;
    let verb = if arguments.dry_run { "would be freed" } else { "freed" };
    tracing::info!("{} {verb}", format::bytes(bytes));
    Ok(())
}
