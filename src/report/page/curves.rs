//! Containers for the charts and maps that the script draws, by group.

use maud::{Markup, html};

use super::super::curves::Map;
use super::super::run::RunReport;
use super::super::thin::rounded;
use super::data::{Chart, Data, EXPERTS, map_id};
use super::metrics::{LOSS, metric};
use super::{heading, loss_color, named, picture};

/// All curves, the losses first.
pub fn curves(data: &Data<'_>, runs: &[RunReport]) -> Markup {
    if data.charts.is_empty() && data.constants.is_empty() {
        return html! { section #curves { h2 { "Curves" } p.note { "No metrics logged yet." } } };
    }
    html! {
        section #curves {
            h2 { "Curves" }
            noscript {
                (picture::loss(runs))
                p.note { "The other charts and maps need JavaScript, which is disabled." }
            }
            div.scripted hidden {
                (controls(runs))
                div.charts { @for (index, chart) in data.charts.iter().enumerate() { (figure(index, chart, runs)) } }
                (constants(&data.constants))
                (explanation(data.thinned))
            }
        }
    }
}

fn figure(index: usize, chart: &Chart, runs: &[RunReport]) -> Markup {
    html! {
        figure.chart.main[chart.tag == LOSS] data-chart=(index) {
            figcaption {
                b { (chart.tag) } " " span { (chart.metric.meaning) }
                @if chart.has_both_losses() {
                    @let color = |held| if runs.len() > 1 { "shared".to_owned() } else { format!("run-{}", loss_color(0, held, 1)) };
                    span.lines {
                        i class={ "sample " (color(false)) } {} "training "
                        i class={ "sample held " (color(true)) } {} "validation"
                    }
                }
            }
            div.plot {}
        }
    }
}

/// What needs no chart: metrics that never changed.
fn constants(constants: &[(String, f64)]) -> Markup {
    html! {
        @if !constants.is_empty() {
            p.note {
                "Constant: "
                @for (index, (tag, value)) in constants.iter().enumerate() {
                    @if index > 0 { ", " }
                    (tag) " = " b { (rounded(*value)) }
                }
                "."
            }
        }
    }
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
                @if runs.iter().all(|run| run.clock.is_some()) { (choice("x", "time", "time", false)) }
            }
            @if runs.len() > 1 {
                span.legend role="group" aria-label="runs" {
                    @for (index, run) in runs.iter().enumerate() {
                        button data-run=(index) aria-pressed="true" title=(run.label) { (named(index, run)) }
                    }
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
            "Time is counted from the first logged step, without the pauses between starts. "
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
                @for map in run.maps.iter().filter(|map| is_empty(map)) {
                    p.note { (map.name) ": none at any logged step." }
                }
                div.maps {
                    @for map in run.maps.iter().filter(|map| !is_empty(map)) {
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

/// Whether it has nothing to draw: a count that was always zero.
pub fn is_empty(map: &Map) -> bool {
    map.rows.iter().flatten().all(|value| *value == 0.0)
}

/// Whether a run has expert loads to show.
pub fn has_maps(run: &RunReport) -> bool {
    !run.maps.is_empty() || run.evaluated.is_some()
}
