//! `oss-run show`: a run's configuration, history and outputs.

use std::fmt::Write as _;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::Value;

use super::completions;
use super::format;
use super::output::{print, print_json};
use super::table::{Layout, VALUES};
use crate::runs::show::{Details, MetricSummary, Output, SetValue, StageShown, StoredCheckpoint};
use oss_runs::run_dir::{RunStatus, RunsDir, Segment};

/// Arguments of `oss-run show`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Print everything as one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the details of a run. Read-only; the run may be in progress.
pub fn show(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let details = Details::load(&runs.resolve(&arguments.run)?)?;
    if arguments.json { print_json(&details) } else { print(&describe(&details)) }
}

fn describe(details: &Details) -> String {
    let plain = Layout { text: true, ..Layout::default() };
    let parts = [
        (plain, facts(details)),
        (
            Layout {
                header: &["stage", "", "started", "duration", "why"],
                right: &[3],
                optional: &[2, 3],
                ..plain
            },
            stages(details),
        ),
        (
            Layout {
                header: &["start", "duration", "ended", "program", "git", "host", "devices"],
                right: &[1],
                optional: &[3, 5, 4],
                ..plain
            },
            starts(details),
        ),
        (VALUES, values(details)),
        (
            Layout { header: &["metric", "first", "last", "best", "at step"], right: &[1, 2, 3, 4], ..plain },
            metrics(details),
        ),
        (Layout { header: &["checkpoint", "size", ""], right: &[1], ..plain }, checkpoints(details)),
        (
            Layout { header: &["output", "size", "path"], right: &[1], optional: &[1], ..plain },
            outputs(details),
        ),
    ];
    let there = parts.into_iter().filter(|(_, rows)| !rows.is_empty());
    there.map(|(layout, rows)| layout.to_terminal(&rows)).collect::<Vec<_>>().join("\n")
}

fn facts(details: &Details) -> Vec<Vec<String>> {
    let steps = match details.steps {
        Some(steps) => format!("{} of {steps}", details.step),
        None => details.step.to_string(),
    };
    let state = match &details.writer {
        Some(writer) => format!("{}, by {writer}", details.status.word()),
        None => details.status.word().to_owned(),
    };
    let starts = counted(details.segments.len() as u64, "start");
    let duration = details.seconds.map(format::duration).unwrap_or_default();
    let times = format!("{}, {duration} in {starts}", format::time(details.created));
    let mut facts = vec![
        ("run", details.directory.display().to_string()),
        ("state", state),
        ("step", steps),
        ("started", times),
        ("size", format::bytes(details.bytes)),
    ];
    let labels = details.marks.labels.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, "{}{name}={value}", if text.is_empty() { "" } else { " " });
        text
    });
    facts.extend(Some(("labels", labels)).filter(|(_, labels)| !labels.is_empty()));
    facts.extend(details.marks.notes.clone().map(|notes| ("notes", notes)));
    facts.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect()
}

/// `1 rank`, `2 ranks`.
fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn duration_between(started: DateTime<Utc>, finished: Option<DateTime<Utc>>) -> String {
    finished.map_or("-".to_owned(), |end| format::duration((end - started).as_seconds_f64()))
}

fn stages(details: &Details) -> Vec<Vec<String>> {
    let row = |stage: &StageShown| {
        vec![
            stage.stage.to_string(),
            stage.status.word().to_owned(),
            format::time(stage.started),
            duration_between(stage.started, stage.finished),
            stage.reason.clone().unwrap_or_default(),
        ]
    };
    details.stages.iter().map(row).collect()
}

fn starts(details: &Details) -> Vec<Vec<String>> {
    let last = details.segments.len().saturating_sub(1);
    let row = |(index, segment): (usize, &Segment)| {
        let environment = &segment.environment;
        let git = environment.git.as_ref().map_or("-".to_owned(), |git| {
            let commit: String = git.commit.chars().take(10).collect();
            if git.dirty { format!("{commit}, dirty") } else { commit }
        });
        let devices = format!(
            "{}, {}, {}",
            segment.devices.join(" "),
            counted(segment.ranks, "rank"),
            counted(segment.threads, "thread")
        );
        vec![
            format::time(segment.started),
            duration_between(segment.started, segment.finished),
            segment.ended(index == last && details.status == RunStatus::Running),
            format!("{}, libtorch {}", environment.program, segment.libtorch),
            git,
            environment.host.name.clone(),
            devices,
        ]
    };
    details.segments.iter().enumerate().map(row).collect()
}

fn values(details: &Details) -> Vec<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |value: &SetValue| {
        let set_by = value.set_by.clone().unwrap_or_else(|| "-".to_owned());
        vec![value.key.clone(), text(&value.value), set_by]
    };
    details.values.iter().map(row).collect()
}

fn metrics(details: &Details) -> Vec<Vec<String>> {
    let row = |course: &MetricSummary| {
        let numbers = [course.first, course.last, course.best].map(format::number);
        [vec![course.name.to_owned()], numbers.to_vec(), vec![course.best_step.to_string()]].concat()
    };
    details.metrics.iter().map(row).collect()
}

fn checkpoints(details: &Details) -> Vec<Vec<String>> {
    let row = |checkpoint: &StoredCheckpoint| {
        let best = if checkpoint.best { "best" } else { "" };
        vec![format!("step {}", checkpoint.step), format::bytes(checkpoint.bytes), best.to_owned()]
    };
    details.checkpoints.iter().map(row).collect()
}

fn outputs(details: &Details) -> Vec<Vec<String>> {
    let row = |output: &Output| {
        vec![output.what.to_owned(), format::bytes(output.bytes), output.path.display().to_string()]
    };
    details.outputs.iter().map(row).collect()
}
