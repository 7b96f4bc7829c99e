//! Containers for the charts and maps that the script draws, by group.

use maud::{Markup, html};

use super::super::run::RunReport;
use super::data::{Chart, Data, EXPERTS, map_id};
use super::metrics::{LOSSES, metric};
use super::{heading, named, picture};

/// All curves, the losses first.
pub fn curves(data: &Data<'_>, runs: &[RunReport]) -> Markup {
    if data.charts.is_empty() {
        return html! { section #curves { h2 { "Curves" } p.note { "No metrics logged yet." } } };
    }
    let of_group = |group: &str| -> Vec<(usize, &Chart)> {
        data.charts.iter().enumerate().filter(|(_, chart)| group_of(&chart.tag) == group).collect()
    };
    html! {
        section #curves {
            h2 { "Curves" }
            noscript {
                (picture::loss(runs))
                p.note { "The other charts and maps need JavaScript, which is disabled." }
            }
            div.scripted hidden {
                (controls(runs))
                (figures("charts losses", of_group(LOSS)))
                @for group in groups(data) { h3 { (group) } (figures("charts", of_group(group))) }
                (explanation(data.thinned))
            }
        }
    }
}

/// The group of the losses, shown above TensorBoard's groups.
const LOSS: &str = "";

/// The TensorBoard group of a metric, except for the losses.
fn group_of(tag: &str) -> &str {
    if LOSSES.contains(&tag) { LOSS } else { tag.split_once('/').map_or(tag, |(group, _)| group) }
}

/// All groups except the losses, in order of appearance.
fn groups<'a>(data: &'a Data<'_>) -> Vec<&'a str> {
    let mut groups: Vec<&str> = Vec::new();
    for group in data.charts.iter().map(|chart| group_of(&chart.tag)) {
        if group != LOSS && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

fn controls(runs: &[RunReport]) -> Markup {
    let choice = |set: &str, to: &str, name: &str, pressed: bool| {
        html! { button data-set=(set) data-to=(to) aria-pressed=(pressed) { (name) } }
    };
    html! {
        div #controls .controls {
            label {
                "smoothing "
                input #smooth type="range" min="0" max="0.99" step="0.01" value="0.6";
                output { "0.6" }
            }
            span.choice role="group" aria-label="vertical axis" {
                (choice("logY", "false", "linear", true)) (choice("logY", "true", "log", false))
            }
            span.choice role="group" aria-label="horizontal axis" {
                (choice("x", "steps", "steps", true)) (choice("x", "log", "log steps", false))
                @if runs.iter().all(|run| run.facts.estimate.is_some()) { (choice("x", "tokens", "tokens", false)) }
            }
            @if runs.len() > 1 {
                span.legend role="group" aria-label="runs" {
                    @for (index, run) in runs.iter().enumerate() {
                        button data-run=(index) aria-pressed="true" { (named(index, run)) }
                    }
                }
            }
        }
    }
}

fn figures(class: &str, charts: Vec<(usize, &Chart)>) -> Markup {
    html! {
        div class=(class) {
            @for (index, chart) in charts {
                figure.chart data-chart=(index) {
                    figcaption { b { (chart.tag) } " " span { (chart.metric.meaning) } }
                    div.plot {}
                }
            }
        }
    }
}

fn explanation(thinned: bool) -> Markup {
    html! {
        p.note {
            "Hover over a chart for its values, drag to zoom in, double-click to zoom out. "
            "Smoothing is an exponential moving average; the original values stay visible behind it. "
            "A triangle at the bottom marks a NaN. "
            @if thinned {
                "Long curves are downsampled: the minimum, the maximum and the first NaN of each interval are drawn, so no "
                "peak is lost. Smoothing uses the interval means. "
                "metrics.jsonl has every value."
            }
        }
    }
}

/// Expert load: during training, and per expert at the end.
pub fn experts(runs: &[RunReport]) -> Markup {
    if !runs.iter().any(has_maps) {
        return html! {};
    }
    html! {
        section #experts .scripted hidden {
            h2 { "Expert load" }
            @for (index, run) in runs.iter().enumerate().filter(|(_, run)| has_maps(run)) {
                (heading(index, runs))
                div.maps {
                    @for map in &run.maps {
                        figure.map #(map_id(index, &map.name)) {
                            figcaption { b { (map.name) } " " span { (metric(&map.name).meaning) } }
                            div.plot {}
                        }
                    }
                    @if let Some(report) = &run.evaluated {
                        figure.map #(map_id(index, EXPERTS)) {
                            figcaption {
                                b { "each expert" } " "
                                span {
                                    "load relative to uniform, on the validation set after step " (report.step)
                                    "; dead: " (report.evaluation.dead_experts)
                                }
                            }
                            div.plot {}
                        }
                    }
                }
            }
        }
    }
}

/// Whether a run has expert loads to show.
pub fn has_maps(run: &RunReport) -> bool {
    !run.maps.is_empty() || run.evaluated.is_some()
}
