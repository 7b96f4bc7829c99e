//! Renders the page: HTML with inline styles, data and scripts.

mod badge;
mod curves;
mod data;
mod headline;
mod metrics;
mod picture;
mod samples;
mod sweep;
mod tables;
mod words;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Report;
use super::run::RunReport;
use data::Data;
use oss_runs::run_dir::redact;

const STYLE: &str = include_str!("page/page.css");

/// The parts of the script, in order.
const SCRIPT: [&str; 6] = [
    include_str!("page/scale.js"),
    include_str!("page/chart.js"),
    include_str!("page/map.js"),
    include_str!("page/samples.js"),
    include_str!("page/table.js"),
    include_str!("page/sweep.js"),
];

/// Forbids external resources, whatever text the page contains.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The whole document. Secrets known to this process are redacted.
pub fn page(report: &Report) -> String {
    let Report { runs, sweep, written } = report;
    let data = Data::of(runs, sweep.as_ref());
    let title = title(report);
    let content = html! {
        (headline::header(&title, runs, *written))
        (contents(report))
        main {
            section #overview { (headline::facts(runs, *written)) }
            @if let Some(sweep) = sweep { (sweep::sweep(sweep, runs.len())) }
            @if !runs.is_empty() {
                (curves::curves(&data, runs))
                (curves::experts(runs))
                (samples::samples(runs))
                div.records {
                    (tables::configuration(runs))
                    div { (tables::environment(runs)) (tables::stages(runs)) }
                }
            }
        }
        script #data type="application/json" { (PreEscaped(data.to_json())) }
    };
    let document: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (redact(&title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (PreEscaped(redact(&content.into_string())))
                script {
                    (PreEscaped("(() => {\n\"use strict\";\n"))
                    @for part in SCRIPT { (PreEscaped(part)) }
                    (PreEscaped("})();"))
                }
            }
        }
    };
    document.into_string()
}

fn title(report: &Report) -> String {
    match (&report.sweep, report.runs.as_slice()) {
        (Some(sweep), _) => format!("sweep {}", sweep.name),
        (None, [run]) => run.label.clone(),
        (None, runs) => match common_folder(runs) {
            Some(name) => format!("{name}: {} runs", runs.len()),
            None => format!("{} runs", runs.len()),
        },
    }
}

/// The name of the runs' folder, if they have one.
fn common_folder(runs: &[RunReport]) -> Option<&str> {
    let mut names = runs.iter().map(|run| run.label.rsplit_once('/').map(|(name, _)| name));
    let first = names.next()??;
    names.all(|name| name == Some(first)).then_some(first)
}

/// Number of distinct run colors; further runs repeat them with dashed lines.
const COLORS: usize = 8;

/// The color of a loss in their chart: that of its run. With one run, the validation loss has the next color.
fn loss_color(run: usize, held: bool, num_runs: usize) -> usize {
    if num_runs == 1 && held { 1 } else { run % COLORS }
}

/// A run's color and name.
fn named(index: usize, run: &RunReport) -> Markup {
    html! { i class={ "swatch run-" (index % COLORS) } {} (run.name) }
}

/// A run's color, name and label.
fn labelled(index: usize, run: &RunReport) -> Markup {
    html! { (named(index, run)) @if run.name != run.label { " " span.id { (run.label) } } }
}

/// A heading for run `index`, unless it is the only one and the page has its name.
fn heading(index: usize, runs: &[RunReport]) -> Markup {
    html! { @if runs.len() > 1 || runs[index].name != runs[index].label { h3 { (labelled(index, &runs[index])) } } }
}

fn contents(report: &Report) -> Markup {
    let runs = &report.runs;
    let parts = [
        ("sweep", "Sweep", report.sweep.is_some()),
        ("curves", "Curves", !runs.is_empty()),
        ("experts", "Expert load", runs.iter().any(curves::has_maps)),
        ("samples", "Samples", runs.iter().any(|run| !run.moments.is_empty())),
        ("configuration", "Configuration", !runs.is_empty()),
        ("environment", "Environment", !runs.is_empty()),
        ("stages", "Stages", !runs.is_empty()),
    ];
    html! { nav { @for (id, name, _) in parts.iter().filter(|(_, _, there)| *there) { a href={ "#" (id) } { (name) } " " } } }
}
