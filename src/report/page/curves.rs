//! The charts: places that the script fills, group by group.

use maud::{Markup, html};

use super::super::run::RunReport;
use super::data::{Chart, Data, EXPERTS, map_id};
use super::metrics::{LOSSES, metric};
use super::picture;

/// All curves, the losses first.
pub fn curves(data: &Data<'_>, runs: &[RunReport]) -> Markup {
    if data.charts.is_empty() {
        return html! { section #curves { h2 { "Curves" } p.note { "Nothing is logged yet." } } };
    }
    let is_loss = |chart: &Chart| LOSSES.contains(&chart.tag.as_str());
    let groups = groups(data);
    html! {
        section #curves {
            h2 { "Curves" }
            noscript { (picture::loss(runs)) p.note { "The charts below need JavaScript, which is switched off." } }
            div #controls .controls hidden {
                label { "smoothing " input #smooth type="range" min="0" max="0.99" step="0.01" value="0.6"; output { "0.6" } }
                span.choice role="group" aria-label="vertical axis" {
                    button data-set="logY" data-to="false" aria-pressed="true" { "linear" }
                    button data-set="logY" data-to="true" aria-pressed="false" { "log" }
                }
                span.choice role="group" aria-label="horizontal axis" {
                    button data-set="x" data-to="steps" aria-pressed="true" { "steps" }
                    button data-set="x" data-to="log" aria-pressed="false" { "log steps" }
                    @if runs.iter().all(|run| run.facts.estimate.is_some()) {
                        button data-set="x" data-to="tokens" aria-pressed="false" { "tokens" }
                    }
                }
                @if runs.len() > 1 {
                    span.legend role="group" aria-label="runs" {
                        @for (index, run) in runs.iter().enumerate() {
                            button data-run=(index) aria-pressed="true" { i class={ "run-" (index % 8) } {} (run.label) }
                        }
                    }
                }
            }
            div.charts.losses { @for (index, chart) in data.charts.iter().enumerate().filter(|(_, chart)| is_loss(chart)) { (figure(index, chart)) } }
            @for group in groups {
                @let charts = || data.charts.iter().enumerate().filter(|(_, chart)| group_of(&chart.tag) == group && !is_loss(chart));
                @if charts().next().is_some() {
                    h3 { (group) }
                    div.charts { @for (index, chart) in charts() { (figure(index, chart)) } }
                }
            }
            p.note {
                "Point at a chart for its values, drag over it to look closer, double-click to go back. "
                "Smoothing is an exponential mean of what is drawn; the values themselves stay visible behind it. "
                "A triangle at the foot marks a value that is not a number. "
                @if data.thinned {
                    "Long curves are thinned out: of each of many equal stretches the least value, the greatest and the "
                    "first that is not a number are drawn, so no peak is lost; what is smoothed are the means of such stretches. "
                    "metrics.jsonl has every value."
                }
            }
        }
    }
}

fn group_of(tag: &str) -> &str {
    tag.split_once('/').map_or(tag, |(group, _)| group)
}

/// TensorBoard's groups, in the order in which they appear.
fn groups<'a>(data: &'a Data<'_>) -> Vec<&'a str> {
    let mut groups: Vec<&str> = Vec::new();
    for chart in &data.charts {
        let group = group_of(&chart.tag);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

fn figure(index: usize, chart: &Chart) -> Markup {
    html! {
        figure.chart data-chart=(index) hidden {
            figcaption { b { (chart.tag) } " " span { (chart.metric.meaning) } }
            div.plot {}
        }
    }
}

/// The load of the experts: in training, and each expert's at the end.
pub fn experts(runs: &[RunReport]) -> Markup {
    let any = runs.iter().any(|run| !run.maps.is_empty() || run.evaluated.is_some());
    if !any {
        return html! {};
    }
    html! {
        section #experts {
            h2 { "Expert load" }
            @for (index, run) in runs.iter().enumerate() {
                @if runs.len() > 1 { h3 { i class={ "swatch run-" (index % 8) } {} (run.label) } }
                div.maps {
                    @for map in &run.maps {
                        figure.map #(map_id(index, &map.name)) {
                            figcaption { b { (map.name) } " " span { (metric(&map.name).meaning) } }
                            div.plot {}
                        }
                    }
                    @if let Some(report) = &run.evaluated {
                        @let dead = report.evaluation.dead_experts;
                        figure.map #(map_id(index, EXPERTS)) {
                            figcaption {
                                b { "each expert" } " "
                                span { "load over the uniform load, validation text after step " (report.step) "; "
                                    (dead) @if dead == 1 { " is dead" } @else { " are dead" } }
                            }
                            div.plot {}
                        }
                    }
                }
            }
        }
    }
}
