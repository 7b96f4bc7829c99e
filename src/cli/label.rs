//! `oss-run label`: labels and notes of a run, after the fact.

use anyhow::Result;
use clap::Args;

use super::output::{print, print_json};
use crate::runs::label::{self, Change, Marks};
use oss_config::error::UserError;
use oss_runs::run_dir::{Manifest, RunsDir};

/// What it takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// Labels to give; none shows those that are there
    #[arg(value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Take a label away
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Notes, in place of those that are there; "" takes them away
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// Print labels and notes as one JSON document
    #[arg(long)]
    json: bool,
}

/// Changes the run's labels and notes, and prints them.
pub fn label(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let run = runs.resolve(&arguments.run)?;
    let change = Change {
        set: arguments.labels.iter().map(|text| pair(text)).collect::<Result<_, _>>()?,
        remove: arguments.remove.clone(),
        notes: arguments.notes.clone(),
    };
    let is_question = change.set.is_empty() && change.remove.is_empty() && change.notes.is_none();
    let marks = if is_question { Marks::of(&Manifest::load(&run)?) } else { label::label(&run, &change)? };
    if arguments.json { print_json(&marks) } else { print(&describe(&marks)) }
}

fn pair(text: &str) -> Result<(String, String), UserError> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(UserError::wrong(format!("{text:?} is no label")).hint("write KEY=VALUE, or --remove KEY")),
    }
}

fn describe(marks: &Marks) -> String {
    let labels = marks.labels.iter().map(|(name, value)| format!("{name}={value}\n"));
    let notes = marks.notes.iter().map(|notes| format!("{notes}\n"));
    labels.chain(notes).collect()
}
