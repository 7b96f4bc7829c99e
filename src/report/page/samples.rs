//! Generated samples by step. Without JavaScript, all are listed one below the other.

use maud::{Markup, html};

use super::super::run::RunReport;
use super::super::samples::Moment;
use super::heading;
use super::words::exact;

/// The samples of all runs.
pub fn samples(runs: &[RunReport]) -> Markup {
    if runs.iter().all(|run| run.moments.is_empty()) {
        return html! {};
    }
    html! {
        section #samples {
            h2 { "Samples" }
            div.columns {
                @for (index, run) in runs.iter().enumerate().filter(|(_, run)| !run.moments.is_empty()) {
                    div { (heading(index, runs)) (of_run(run)) }
                }
            }
        }
    }
}

fn of_run(run: &RunReport) -> Markup {
    html! {
        div.moments { @for moment in &run.moments { (at(moment)) } }
        @if run.moments.len() < run.num_moments {
            p.note {
                (run.moments.len()) " of " (run.num_moments)
                " sampling points are shown; the others are in the `samples` folder of the run."
            }
        }
    }
}

fn at(moment: &Moment) -> Markup {
    let when =
        moment.step.map_or_else(|| "finished".to_owned(), |step| format!("after step {}", exact(step)));
    html! {
        article data-when=(when) {
            h4 { (when) }
            @for sample in &moment.samples { blockquote { b { (sample.prompt) } (sample.text) } }
        }
    }
}
