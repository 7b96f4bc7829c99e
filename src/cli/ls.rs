//! `oss-run ls`: list runs, one per line.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Map, Value};

use super::completions;
use super::format;
use super::output::{print, print_json};
use super::table::Layout;
use crate::runs::columns::{self, Fact};
use crate::runs::{Column, Condition, Filter, Overview, filter};
use oss_config::error::ErrorReport;
use oss_runs::run_dir::{RunStatus, RunsDir};

/// Arguments of `oss-run ls`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only runs with this name, id or name/id; `*` matches anything
    #[arg(value_name = "NAME", add = completions::runs())]
    names: Vec<String>,
    /// Only runs in this state; may be given several times
    #[arg(long, value_enum, value_name = "STATE")]
    state: Vec<RunStatus>,
    /// Only runs with this label, or with this label and value; may be given several times
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Only runs that satisfy a condition: optimizer.lr=1e-3, 'val_loss<2.5'; also != < <= > >=; KEY= matches unset
    #[arg(long = "where", value_name = "KEY=VALUE", add = completions::columns())]
    conditions: Vec<String>,
    /// Sort by this column, or by -COLUMN for descending order [default: last start, newest last]
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true, add = completions::columns())]
    sort: Option<String>,
    /// Reverse the order
    #[arg(long)]
    reverse: bool,
    /// Columns to show: run properties, keys of the experiment file, or metrics
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', add = completions::columns())]
    columns: Vec<String>,
    /// Print the runs as one JSON document
    #[arg(long)]
    json: bool,
    /// Print the columns as CSV, with full values: times in UTC, durations in seconds, sizes in bytes
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Lists the runs. Read-only, and safe while runs are in progress.
pub fn ls(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let filter = arguments.filter()?;
    let columns = arguments.columns();
    let (sort, descending) = match arguments.sort.as_deref() {
        None => (Column::Fact(Fact::Started), false),
        Some(word) => match word.strip_prefix('-') {
            Some(word) => (Column::parse(word), true),
            None => (Column::parse(word), false),
        },
    };
    let asked: Vec<&Column> = columns
        .iter()
        .chain([&sort])
        .chain(filter.conditions.iter().map(|condition| &condition.column))
        .collect();
    let metrics: Vec<&str> = asked.iter().filter_map(|column| column.metric()).collect();
    let mut found = Overview::all(runs, &metrics)?;
    for column in &asked {
        column.check(&found)?;
    }
    for error in found.iter().filter_map(|run| run.manifest.as_ref().err()) {
        tracing::warn!("{}", ErrorReport::from(error));
    }
    found.retain(|run| filter.matches(run));
    let mut keyed: Vec<(Value, Overview)> = found.into_iter().map(|run| (sort.value(&run), run)).collect();
    keyed.sort_by(|(a, _), (b, _)| match (a.is_null() || b.is_null(), descending != arguments.reverse) {
        // Runs without a value come last in either order.
        (true, _) | (false, false) => columns::order(a, b),
        (false, true) => columns::order(b, a),
    });
    let found: Vec<Overview> = keyed.into_iter().map(|(_, run)| run).collect();
    if arguments.json {
        let documents: Vec<Map<String, Value>> = found.iter().map(|run| document(run, &columns)).collect();
        return print_json(&serde_json::json!({ "runs": documents }));
    }
    if arguments.csv {
        return print(&csv(&found, &columns)?);
    }
    if found.is_empty() {
        tracing::info!("no matching runs in {}", runs.root().display());
        return Ok(());
    }
    // Columns that were asked for are not left out.
    let optional = if arguments.columns.is_empty() { columns::OPTIONAL.as_slice() } else { &[] };
    print(&rows(&found, &columns, optional))
}

impl Arguments {
    fn filter(&self) -> Result<Filter> {
        Ok(Filter {
            names: self.names.iter().map(|name| filter::pattern(name)).collect::<Result<_, _>>()?,
            states: self.state.clone(),
            labels: self.label.iter().map(|label| filter::label(label)).collect(),
            conditions: self
                .conditions
                .iter()
                .map(|text| text.parse::<Condition>())
                .collect::<Result<_, _>>()?,
        })
    }

    fn columns(&self) -> Vec<Column> {
        if self.columns.is_empty() {
            return columns::DEFAULT.iter().map(|word| Column::parse(word)).collect();
        }
        self.columns.iter().map(|word| Column::parse(word)).collect()
    }
}

/// The columns of a run by name, and its directory.
fn document(run: &Overview, columns: &[Column]) -> Map<String, Value> {
    let mut document: Map<String, Value> =
        columns.iter().map(|column| (column.word().to_owned(), column.value(run))).collect();
    for fact in [Fact::Steps, Fact::Directory].map(Column::Fact) {
        document.insert(fact.word().to_owned(), fact.value(run));
    }
    document
}

/// The columns of the runs, one line each after a header.
fn csv(runs: &[Overview], columns: &[Column]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns.iter().map(Column::word))?;
    for run in runs {
        writer.write_record(columns.iter().map(|column| field(column.value(run))))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A value as a field: labels as in the table, everything else as in JSON, without quotes.
fn field(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Object(labels) => pairs(&labels),
        other => other.to_string(),
    }
}

/// `team=speech owner=ann`.
fn pairs(labels: &Map<String, Value>) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
    labels.iter().map(pair).collect::<Vec<_>>().join(" ")
}

fn rows(runs: &[Overview], columns: &[Column], optional: &[&str]) -> String {
    let header: Vec<&str> = columns.iter().map(Column::word).collect();
    let rows: Vec<Vec<String>> =
        runs.iter().map(|run| columns.iter().map(|column| cell(run, column)).collect()).collect();
    let is_number = |column: &Column| match column {
        Column::Metric(_) => true,
        Column::Fact(fact) => {
            matches!(fact, Fact::Step | Fact::Steps | Fact::Duration | Fact::Size)
        }
        Column::Key(_) => runs.iter().any(|run| column.value(run).is_number()),
    };
    let is_value = |column: &Column| {
        matches!(column, Column::Key(_) | Column::Metric(_) | Column::Fact(Fact::Labels | Fact::Notes))
    };
    let places = |test: &dyn Fn(&Column) -> bool| -> Vec<usize> {
        columns.iter().enumerate().filter(|(_, column)| test(column)).map(|(index, _)| index).collect()
    };
    let optional: Vec<usize> =
        optional.iter().filter_map(|word| header.iter().position(|name| name == word)).collect();
    let (right, elastic) = (places(&is_number), places(&is_value));
    let layout = Layout {
        header: &header,
        right: &right,
        optional: &optional,
        elastic: &elastic,
        ..Layout::default()
    };
    layout.to_terminal(&rows)
}

fn cell(run: &Overview, column: &Column) -> String {
    match (column, column.value(run)) {
        (Column::Fact(Fact::State), Value::String(state)) => match run.skipped_steps() {
            0 => state,
            skipped => format!("{state}, {skipped} steps skipped"),
        },
        (_, Value::Null) => "-".to_owned(),
        (Column::Fact(Fact::Step), step) => {
            run.steps().map_or_else(|| step.to_string(), |steps| format!("{step}/{steps}"))
        }
        (Column::Fact(Fact::Started), Value::String(text)) => {
            text.parse::<DateTime<Utc>>().map_or(text, format::time)
        }
        (Column::Fact(Fact::Duration), value) => format::duration(value.as_f64().unwrap_or_default()),
        (Column::Fact(Fact::Size), value) => format::bytes(value.as_u64().unwrap_or_default()),
        (Column::Fact(Fact::Labels), Value::Object(labels)) => pairs(&labels),
        (Column::Metric(_), Value::Number(number)) => format::number(number.as_f64().unwrap_or(f64::NAN)),
        (_, Value::String(text)) => text,
        (_, other) => other.to_string(),
    }
}
