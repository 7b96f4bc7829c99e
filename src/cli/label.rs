//! `oss-run label`: change the labels and notes of an existing run.

use anyhow::Result;
use clap::Args;

use super::completions;
use super::output::{print, print_json};
use crate::runs::label::{self, Change, Marks};
use oss_config::error::UserError;
use oss_runs::run_dir::{Manifest, RunsDir};

/// Arguments of `oss-run label`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Labels to set; without any change, the current ones are printed
    #[arg(value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Remove a label; may be given several times
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Replace the notes; "" removes them
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
        _ => Err(UserError::wrong(format!("invalid label {text:?}"))
            .hint("write KEY=VALUE, or remove a label with --remove KEY")),
    }
}

fn describe(marks: &Marks) -> String {
    let labels = marks.labels.iter().map(|(name, value)| format!("{name}={value}\n"));
    let notes = marks.notes.iter().map(|notes| format!("{notes}\n"));
    labels.chain(notes).collect()
}
