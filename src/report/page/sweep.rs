//! A sweep: its trials as a table, and places for what the script draws of them.

use maud::{Markup, html};
use serde_json::Value;

use super::super::sweep::{Sweep, Trial};
use super::words::exact;

/// The trials of a sweep, on a page with the curves of `curves` runs.
pub fn sweep(sweep: &Sweep, curves: usize) -> Markup {
    let keys = sweep.keys();
    let ranked = sweep.ranked();
    let best = ranked.first().map(|trial| trial.trial);
    html! {
        section #sweep {
            h2 { "Sweep" }
            p.note {
                (sweep.trials.len()) " trials, " (counts(sweep)) "; "
                @if sweep.maximize { "more " } @else { "less " } b { (sweep.metric) } " is better."
                @if let Some(best) = ranked.first() {
                    " The best is trial " b { (best.trial) }
                    @if let Some(value) = best.value { " with " b { (format!("{value:.5}")) } }
                    "."
                }
                @if curves > 0 { " Below are the curves of " (curves) @if curves == 1 { " run." } @else { " runs." } }
            }
            figure #coordinates .wide .scripted hidden {
                figcaption {
                    b { "All trials" } " "
                    span { "a line for each, bluer where it is better; drag along an axis to filter, click it to stop" }
                }
                div.plot {}
            }
            div #scatter .charts.small {}
            div.scroll { table #trials .sortable {
                thead { tr {
                    th.number { "trial" } th { "run" } th { "state" }
                    @for key in &keys { th { code { (key) } } }
                    th.number { (sweep.metric) } th.number { "step" } th.number { "seconds" }
                } }
                tbody { @for trial in &sweep.trials { (row(trial, &keys, Some(trial.trial) == best)) } }
            } }
        }
    }
}

fn counts(sweep: &Sweep) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for trial in &sweep.trials {
        match counts.iter_mut().find(|(state, _)| *state == trial.state) {
            Some((_, number)) => *number += 1,
            None => counts.push((&trial.state, 1)),
        }
    }
    counts.iter().map(|(state, number)| format!("{number} {state}")).collect::<Vec<_>>().join(", ")
}

fn row(trial: &Trial, keys: &[&str], is_best: bool) -> Markup {
    let number = |value: Option<f64>, text: Option<String>| {
        html! { td.number data-value=[value] { (text.unwrap_or_else(|| "–".to_owned())) } }
    };
    html! {
        tr.best[is_best] data-trial=(trial.trial) {
            td.number data-value=(trial.trial) { (trial.trial) }
            td { code { (trial.run.as_deref().unwrap_or("–")) } }
            td { span class={ "state " (class(&trial.state)) } { (trial.state) } }
            @for key in keys {
                @let value = trial.values.get(*key);
                @let text = value.map(shown).unwrap_or_else(|| "–".to_owned());
                td.value data-value=[value.and_then(Value::as_f64)] title=(text) { (text) }
            }
            (number(trial.value, trial.value.map(|value| format!("{value:.5}"))))
            (number(trial.step.map(|step| step as f64), trial.step.map(exact)))
            (number(trial.seconds, trial.seconds.map(|seconds| format!("{seconds:.1}"))))
        }
    }
}

/// A state's colour; what this program does not know has none.
fn class(state: &str) -> &'static str {
    match state {
        "done" => "done",
        "failed" => "failed",
        "stopped" | "paused" => "stopped",
        "running" => "open",
        _ => "waiting",
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
