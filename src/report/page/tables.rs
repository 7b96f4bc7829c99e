//! Tables of configuration, environment and stages.

use chrono::TimeDelta;
use maud::{Markup, html};
use serde_json::Value;

use super::super::configuration::differences;
use super::super::run::RunReport;
use super::words::{duration, moment};
use super::{badge, named};
use crate::plan::Stage;
use crate::plan::keys::{by_key, default_values};
use crate::runs::show::{SetValue, set_values};
use oss_runs::run_dir::Segment;

/// Non-default values; for several runs, first those that differ.
pub fn configuration(runs: &[RunReport]) -> Markup {
    let experiments: Vec<_> = runs.iter().map(|run| &run.manifest.experiment).collect();
    html! {
        section #configuration {
            h2 { "Configuration" }
            @if runs.len() > 1 {
                @let differing = differences(&experiments);
                h3 { "Where the runs differ" }
                @if differing.is_empty() { p.note { "No differences: the runs have the same configuration." } }
                @else { div.scroll { table.differences {
                    thead { tr {
                        th { "value" }
                        @for (index, run) in runs.iter().enumerate() { th { (named(index, run)) } }
                    } }
                    tbody { @for (key, values) in differing { tr {
                        th { code { (key) } }
                        @for value in values { td { (value.map_or_else(|| "–".to_owned(), |value| value.to_string())) } }
                    } } }
                } } }
            }
            @for run in runs {
                details open[runs.len() == 1] {
                    summary { "Non-default values" @if runs.len() > 1 { ": " (run.name) } }
                    div.scroll { table {
                        thead { tr { th { "value" } th {} th { "default" } th { "set by" } } }
                        tbody { @for SetValue { key, value, set_by } in set_values(&run.manifest) { tr {
                            @let default = default_values().get(&key);
                            th { code { (key) } } td { (value.to_string()) }
                            td.faint { (default.map_or_else(|| "unset".to_owned(), Value::to_string)) }
                            // Not set explicitly, but derived from other values, like the vocabulary size.
                            td.faint { (set_by.as_deref().unwrap_or("derived")) }
                        } } }
                    } }
                }
            }
        }
    }
}

/// Columns of the table of starts.
const STARTS: [&str; 8] = ["started", "took", "ended", "program", "git", "libtorch", "host", "devices"];

/// All starts of all runs: program, machine, times, outcome.
pub fn environment(runs: &[RunReport]) -> Markup {
    html! {
        section #environment {
            h2 { "Environment" }
            div.scroll { table {
                thead { tr {
                    @if runs.len() > 1 { th { "run" } }
                    @for name in STARTS { th { (name) } }
                    th.number { "ranks" } th.number { "threads" }
                } }
                @for (run, report) in runs.iter().enumerate() {
                    @let starts = &report.manifest.segments;
                    tbody { @for (index, start) in starts.iter().enumerate() {
                        tr {
                            (run_cell(run, runs, index, starts.len()))
                            (segment(start, report.is_running() && index + 1 == starts.len()))
                        }
                    } }
                }
            } }
            @for run in runs {
                @for (index, start) in run.manifest.segments.iter().enumerate() {
                    details {
                        summary { "Full record of start " (index + 1) @if runs.len() > 1 { ": " (run.name) } }
                        dl.plain {
                            @for (key, value) in by_key(serde_json::to_value(start).unwrap_or_default()) {
                                @let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                                div { dt { (key) } dd { (text) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The name of a run before the first of its rows, in a table of several runs.
fn run_cell(run: usize, runs: &[RunReport], row: usize, rows: usize) -> Markup {
    html! { @if runs.len() > 1 && row == 0 { th rowspan=(rows) { (named(run, &runs[run])) } } }
}

fn segment(start: &Segment, is_running: bool) -> Markup {
    let host = &start.environment.host;
    html! {
        td { (moment(start.started)) }
        td { (start.finished.map_or_else(|| "–".to_owned(), |end| stage_duration(end - start.started))) }
        td { (start.ended(is_running)) }
        td { "oss-run " (start.environment.program) }
        td { @match &start.environment.git {
            Some(git) => {
                code title=(git.commit) { (git.commit.chars().take(10).collect::<String>()) }
                @if git.dirty { " (dirty)" }
            },
            None => "–",
        } }
        td { (start.libtorch) }
        td {
            (host.name)
            @if !host.cpu.is_empty() { ", " (host.cpu) }
            @if host.cores > 0 { ", " (host.cores) " cores" }
        }
        td { (start.devices.join(", ")) }
        td.number { (start.ranks) }
        td.number { (start.threads) }
    }
}

/// The state of each stage, and why it ran.
pub fn stages(runs: &[RunReport]) -> Markup {
    html! {
        section #stages {
            h2 { "Stages" }
            div.scroll { table {
                thead { tr {
                    @if runs.len() > 1 { th { "run" } }
                    th { "stage" } th { "state" } th { "reason" } th { "started" } th { "took" }
                } }
                @for (run, report) in runs.iter().enumerate() {
                    @let records: Vec<_> = Stage::ALL
                        .into_iter()
                        .filter_map(|stage| Some((stage, report.manifest.stages.get(stage.name())?)))
                        .collect();
                    tbody { @for (index, (stage, record)) in records.iter().enumerate() { tr {
                        (run_cell(run, runs, index, records.len()))
                        th { (stage) }
                        td { (badge::run(record.state.status(report.is_running()))) }
                        td { (record.reason.as_deref().unwrap_or("")) }
                        td { (moment(record.started)) }
                        td { (record.finished.map_or_else(|| "–".to_owned(), |end| stage_duration(end - record.started))) }
                    } } }
                }
            } }
        }
    }
}

fn stage_duration(time: TimeDelta) -> String {
    if time < TimeDelta::seconds(1) { format!("{} ms", time.num_milliseconds()) } else { duration(time) }
}
