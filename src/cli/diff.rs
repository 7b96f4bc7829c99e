//! `oss-run diff`: compare two runs.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::completions;
use super::format;
use super::output::{print, print_json};
use super::table::Layout;
use crate::runs::diff::{Difference, Differences};
use crate::runs::select::select;
use oss_config::error::UserError;
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The two runs: paths, ids (or unique prefixes), names, `last`, or a pattern that matches two, such as 'mine/*'
    #[arg(value_name = "RUN", add = completions::runs(), required = true, num_args = 1..=2)]
    runs: Vec<String>,
    /// Print the differences as one JSON document
    #[arg(long)]
    json: bool,
}

/// Compares the runs and prints the differences. Read-only.
pub fn diff(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let selected = select(runs, &arguments.runs)?;
    let [left, right] = selected.as_slice() else {
        let names: Vec<String> = selected.iter().map(|run| format!("{}/{}", run.name(), run.id())).collect();
        return Err(UserError::wrong(format!(
            "diff compares two runs, not {}: {}",
            names.len(),
            names.join(", ")
        ))
        .hint("name two of them; `oss-run report` shows any number")
        .into());
    };
    let found = Differences::between(left, right)?;
    if arguments.json { print_json(&found) } else { print(&describe(&found)) }
}

/// Longer values are truncated (digests even more); `--json` prints them in full.
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
        rows.push(row(["tokens per second (median)", &format::number(left), &format::number(right)]));
    }
    let header = ["", left.as_str(), right.as_str()];
    let layout = Layout { header: &header, elastic: &[1, 2], overhang: true, ..Layout::default() };
    let mut text = layout.to_terminal(&rows);
    let number = |loss: Option<f64>| loss.map_or("nan".to_owned(), |loss| loss.to_string());
    text.push_str(&match (&found.first_different_loss, found.common_steps) {
        _ if found.same => {
            "\nno differences in configuration, data, code, environment or metrics\n".to_owned()
        }
        (Some(loss), _) => format!(
            "\nlosses differ from step {}: {} and {}\n",
            loss.step,
            number(loss.left),
            number(loss.right)
        ),
        (None, 0) => "\nthe runs have no logged steps in common\n".to_owned(),
        (None, steps) => format!("\nlosses are identical at all {steps} common steps\n"),
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
