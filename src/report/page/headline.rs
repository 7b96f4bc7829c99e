//! The key facts of each run.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::super::run::{Facts, Loss, RunReport};
use super::words::{duration, exact, moment, scaled};
use super::{badge, labelled};
use oss_runs::run_dir::RunStatus;

/// Tiles for one run, a table for several.
pub fn facts(runs: &[RunReport], written: DateTime<Utc>) -> Markup {
    html! {
        @if let [run] = runs { (tiles(&run.facts, written)) } @else if !runs.is_empty() { (table(runs)) }
        @for run in runs {
            @if let Some(error) = &run.facts.error {
                p.failure { b { (run.name) } " ended with: " (error) }
            }
        }
        @for run in runs { (notes(run, runs.len() > 1)) }
    }
}

fn tiles(facts: &Facts, written: DateTime<Utc>) -> Markup {
    let state_note = match (facts.status, facts.logged) {
        (RunStatus::Running | RunStatus::Interrupted, Some(logged)) => {
            format!("last logged {} before this report", duration(written - logged))
        }
        _ => format!("{} in total", duration(facts.running_time)),
    };
    let loss = |nats: f64| html! { (format!("{nats:.4}")) };
    html! {
        dl.tiles {
            (tile("state", badge::run(facts.status), &state_note))
            (tile("steps", html! { (exact(facts.step)) }, &of_steps(facts)))
            @if let Some(last) = facts.last {
                (tile("validation loss", loss(last.nats), &format!("nats per token, after step {}", exact(last.step))))
                (tile("perplexity", html! { (format!("{:.3}", last.nats.exp())) }, "exp of the loss"))
                @if let Some(bits) = last.bits_per_byte { (tile("bits per byte", loss(bits), "on the validation set")) }
            }
            @if let Some(best) = facts.best {
                (tile("best validation loss", loss(best.nats), &format!("after step {}", exact(best.step))))
            }
            @if let Some(tokens) = facts.tokens() {
                (tile("tokens", html! { (scaled(tokens as f64)) }, &format!("{} trained on", exact(tokens))))
            }
            @if let Some(speed) = facts.tokens_per_second {
                (tile("throughput", html! { (scaled(speed)) }, "tokens per second, median"))
            }
            @if let Some(parameters) = facts.estimate.as_ref().map(|estimate| &estimate.parameters) {
                @let active = format!("{} active per token", scaled(parameters.active as f64));
                (tile("parameters", html! { (scaled(parameters.total as f64)) }, &active))
            }
        }
    }
}

fn tile(name: &str, value: Markup, note: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) small { (note) } } } }
}

fn of_steps(facts: &Facts) -> String {
    let skipped =
        if facts.skipped > 0 { format!(", {} skipped", exact(facts.skipped)) } else { String::new() };
    facts.steps.map_or_else(String::new, |steps| format!("of {}{skipped}", exact(steps)))
}

/// Columns of the table of runs.
const NUMBERS: [&str; 8] =
    ["validation loss", "best", "steps", "perplexity", "bits per byte", "tokens", "tokens/s", "parameters"];

fn table(runs: &[RunReport]) -> Markup {
    let losses = |facts: &Facts| facts.last.map(|loss| loss.nats);
    let least = runs.iter().filter_map(|run| losses(&run.facts)).reduce(f64::min);
    let cell = |text: Option<String>, value: Option<f64>| {
        html! { td.number data-value=[value] { (text.unwrap_or_else(|| "–".to_owned())) } }
    };
    let loss = |loss: Option<Loss>, show: fn(Loss) -> Option<f64>| {
        let value = loss.and_then(show);
        cell(value.map(|value| format!("{value:.4}")), value)
    };
    html! {
        div.scroll { table.sortable {
            thead { tr {
                th { "run" } th { "state" }
                @for name in NUMBERS { th.number { (name) } }
            } }
            tbody { @for (index, run) in runs.iter().enumerate() {
                @let facts = &run.facts;
                tr.best[losses(facts).is_some() && losses(facts) == least] {
                    th { (labelled(index, run)) }
                    td { (badge::run(facts.status)) }
                    (loss(facts.last, |loss| Some(loss.nats)))
                    (loss(facts.best, |loss| Some(loss.nats)))
                    (cell(Some(format!("{} {}", exact(facts.step), of_steps(facts))), Some(facts.step as f64)))
                    (loss(facts.last, |loss| Some(loss.nats.exp())))
                    (loss(facts.last, |loss| loss.bits_per_byte))
                    @let tokens = facts.tokens().map(|tokens| tokens as f64);
                    @let parameters = facts.estimate.as_ref().map(|estimate| estimate.parameters.total as f64);
                    @for value in [tokens, facts.tokens_per_second, parameters] { (cell(value.map(scaled), value)) }
                }
            } }
        } }
    }
}

fn notes(run: &RunReport, several: bool) -> Markup {
    let about = &run.manifest.experiment["run"];
    let notes = about["notes"].as_str().filter(|notes| !notes.is_empty());
    let labels = about["labels"].as_object().filter(|labels| !labels.is_empty());
    html! {
        @if notes.is_some() || labels.is_some() {
            p.notes {
                @if several { b { (run.name) } " " }
                @for (name, value) in labels.into_iter().flatten() {
                    span.label { (name) " " b { (value.as_str().unwrap_or_default()) } } " "
                }
                (notes.unwrap_or_default())
            }
        }
    }
}

/// The title of the page, and when it was written.
pub fn header(title: &str, runs: &[RunReport], written: DateTime<Utc>) -> Markup {
    let started = runs.iter().map(|run| run.manifest.created).min();
    html! {
        header {
            p.eyebrow { "oss-run report" }
            h1 { (title) }
            p.note {
                @if let Some(started) = started { "started " (moment(started)) " · " }
                "written " (moment(written)) " by oss-run " (env!("CARGO_PKG_VERSION"))
            }
        }
    }
}
