//! `oss-run diff`: what differs between two runs.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::output::{print, print_json};
use super::table::table;
use super::words;
use crate::runs::diff::{Difference, Differences};
use oss_runs::run_dir::RunsDir;

/// What it takes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The first run: a path, an id or the start of one, a name, or `last`
    #[arg(value_name = "RUN")]
    left: String,
    /// The second
    #[arg(value_name = "RUN")]
    right: String,
    /// Print the differences as one JSON document
    #[arg(long)]
    json: bool,
}

/// Compares the runs and prints what differs. Nothing is written.
pub fn diff(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let (left, right) = (runs.resolve(&arguments.left)?, runs.resolve(&arguments.right)?);
    let found = Differences::between(&left, &right)?;
    if arguments.json { print_json(&found) } else { print(&describe(&found)) }
}

/// Longer values are cut, digests soonest; `--json` has all of them.
const MAX_CHARS: usize = 48;

fn describe(found: &Differences) -> String {
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let (left, right) = (found.left.display().to_string(), found.right.display().to_string());
    let mut rows = Vec::new();
    let parts = [
        ("configuration", &found.configuration),
        ("data", &found.data),
        ("code", &found.code),
        ("environment", &found.environment),
        ("metrics", &found.metrics),
    ];
    for (name, differences) in parts {
        if differences.is_empty() {
            continue;
        }
        rows.push(row([name, "", ""]));
        for Difference { what, left, right } in differences {
            rows.push(row([&format!("  {what}"), &cell(left), &cell(right)]));
        }
    }
    if let [Some(left), Some(right)] = found.tokens_per_second {
        rows.push(row(["tokens a second (median)", &words::number(left), &words::number(right)]));
    }
    let mut text = table(&["", &left, &right], rows, &[]);
    let number = |loss: Option<f64>| loss.map_or("nan".to_owned(), |loss| loss.to_string());
    text.push_str(&match (&found.first_different_loss, found.common_steps) {
        _ if found.same => {
            "\nnothing differs: neither configuration, data, code, environment nor metrics\n".to_owned()
        }
        (Some(loss), _) => format!(
            "\nthe loss differs from step {} on: {} and {}\n",
            loss.step,
            number(loss.left),
            number(loss.right)
        ),
        (None, 0) => "\nthere is no step that both logged\n".to_owned(),
        (None, steps) => format!("\nthe losses of all {steps} steps that both logged are the same\n"),
    });
    text
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let is_digest = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let most = if is_digest { 12 } else { MAX_CHARS };
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['\u{2026}']).collect()
}
