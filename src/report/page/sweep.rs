//! A sweep: its trials as a table, and containers for the charts drawn by the script.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::Value;

use super::badge;
use super::words::exact;
use crate::sweep::{Results, TrialResult, TrialStatus, cell};
use oss_config::Direction;

/// The trials of a sweep, on a page with the curves of `curves` runs.
pub fn sweep(sweep: &Results, curves: usize) -> Markup {
    let metric = sweep.metric.name();
    let keys = keys(sweep);
    let is_best = |row: &TrialResult| sweep.best.as_ref() == Some(&row.run);
    html! {
        section #sweep {
            h2 { "Sweep" }
            p.note {
                (sweep.trials.len()) " trials, " (counts(sweep)) "; "
                @match sweep.direction { Direction::Maximize => "higher ", Direction::Minimize => "lower " }
                b { (metric) } " is better."
                @if let Some(best) = sweep.trials.iter().find(|row| is_best(row)) {
                    " The best is trial " b { (best.trial) }
                    @if let Some(value) = best.value { " with " b { (format!("{value:.5}")) } }
                    "."
                }
                @if curves > 0 { " Below are the curves of " (curves) @if curves == 1 { " run." } @else { " runs." } }
            }
            div.halves {
                figure #coordinates .wide .scripted hidden {
                    figcaption {
                        b { "All trials" } " "
                        span { "one line per trial, bluer is better; drag along an axis to filter, click it to reset" }
                    }
                    div.plot {}
                }
                div #scatter .charts.small {}
            }
            div.scroll { table #trials .sortable {
                thead { tr {
                    th.number { "trial" } th { "run" } th { "state" }
                    @for key in &keys { th { code { (key) } } }
                    th.number { (metric) } th.number { "step" } th.number { "seconds" }
                } }
                tbody { @for trial in &sweep.trials { (row(trial, &keys, is_best(trial))) } }
            } }
        }
    }
}

/// The swept keys.
fn keys(sweep: &Results) -> BTreeSet<&String> {
    sweep.trials.iter().flat_map(|row| row.values.keys()).collect()
}

fn counts(sweep: &Results) -> String {
    let counts = TrialStatus::ALL.map(|status| (sweep.count(status), status.word()));
    let some = counts.iter().filter(|(number, _)| *number > 0);
    some.map(|(number, state)| format!("{number} {state}")).collect::<Vec<_>>().join(", ")
}

fn row(trial: &TrialResult, keys: &BTreeSet<&String>, is_best: bool) -> Markup {
    let number = |value: Option<f64>, text: Option<String>| {
        html! { td.number data-value=[value] { (text.unwrap_or_else(|| "–".to_owned())) } }
    };
    html! {
        tr.best[is_best] data-trial=(trial.trial) {
            td.number data-value=(trial.trial) { (trial.trial) }
            td { code { (trial.run) } }
            td { (badge::trial(trial.status)) }
            @for key in keys {
                @let value = trial.values.get(*key);
                @let text = value.map_or_else(|| "–".to_owned(), cell);
                td.value data-value=[value.and_then(Value::as_f64)] title=(text) { (text) }
            }
            (number(trial.value, trial.value.map(|value| format!("{value:.5}"))))
            (number(Some(trial.step as f64), Some(exact(trial.step))))
            (number(Some(trial.seconds), Some(format!("{:.1}", trial.seconds))))
        }
    }
}
