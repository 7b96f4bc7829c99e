//! Renders the stage graph as text, Mermaid or Graphviz.

use std::fmt::Write;

use super::{Freshness, PlannedStage, Stage};
use oss_config::Experiment;

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Plain text for the terminal
    Text,
    /// Mermaid flowchart, rendered by GitHub and many editors
    Mermaid,
    /// Graphviz digraph, for `dot -Tsvg`
    Dot,
}

/// An edge between two boxes.
struct Edge {
    from: String,
    to: &'static str,
    what: &'static str,
}

/// Draws the stages of `experiment`; without `stages`, their state is unknown.
pub fn draw(experiment: &Experiment, stages: Option<&[PlannedStage]>, language: Language) -> String {
    let state = |stage: Stage| {
        let planned = stages.and_then(|stages| stages.iter().find(|planned| planned.stage == stage));
        planned.map_or_else(|| "unknown".to_owned(), |planned| planned.freshness.to_string())
    };
    let is_stale = |stage: Stage| {
        let planned = stages.and_then(|stages| stages.iter().find(|planned| planned.stage == stage));
        planned.is_some_and(|planned| matches!(planned.freshness, Freshness::Stale { .. }))
    };
    let inputs = inputs(experiment);
    let edges: Vec<Edge> = inputs
        .iter()
        .map(|(id, _, to)| Edge { from: id.clone(), to: to.name(), what: "" })
        .chain(between())
        .collect();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match language {
        Language::Text => Stage::ALL.iter().try_for_each(|stage| {
            let sources = inputs.iter().filter(|(_, _, to)| to == stage).map(|(_, name, _)| name.clone());
            let made = between().filter(|edge| edge.to == stage.name()).map(|edge| edge.what.to_owned());
            let takes: Vec<String> = sources.chain(made).collect();
            writeln!(text, "{stage:<10} {} -> {}", takes.join(" + "), makes(*stage))?;
            writeln!(text, "{:<10} {}", "", state(*stage))
        }),
        Language::Mermaid => mermaid(&mut text, &inputs, &edges, state, is_stale),
        Language::Dot => dot(&mut text, &inputs, &edges, state, is_stale),
    };
    text
}

/// The inputs of the experiment: node id, label, and the stage that reads it.
fn inputs(experiment: &Experiment) -> Vec<(String, String, Stage)> {
    let dataset = &experiment.dataset;
    let texts = dataset.sources().into_iter().enumerate();
    let mut inputs: Vec<(String, String, Stage)> = texts
        .map(|(index, (name, ..))| (format!("text{index}"), format!("text of {name}"), Stage::Prepare))
        .collect();
    if dataset.validation.origin().is_some() {
        inputs.push(("validation".to_owned(), "validation text".to_owned(), Stage::Prepare));
    }
    let first = match &experiment.model.init_from {
        Some(from) => format!("weights of {from}"),
        None => format!("random weights, seed {}", experiment.run.seed),
    };
    inputs.push(("first".to_owned(), first, Stage::Train));
    inputs
}

/// Data passed between stages.
fn between() -> impl Iterator<Item = Edge> {
    [
        (Stage::Prepare, Stage::Train, "tokens"),
        (Stage::Prepare, Stage::Evaluate, "validation tokens"),
        (Stage::Train, Stage::Evaluate, "weights"),
        (Stage::Train, Stage::Sample, "weights"),
        (Stage::Train, Stage::Export, "weights"),
    ]
    .into_iter()
    .map(|(from, to, what)| Edge { from: from.name().to_owned(), to: to.name(), what })
}

/// The outputs of a stage in the run directory.
fn makes(stage: Stage) -> &'static str {
    match stage {
        Stage::Prepare => "tokens",
        Stage::Train => "checkpoints/, metrics.jsonl",
        Stage::Evaluate => "evaluation.json",
        Stage::Sample => "samples/",
        Stage::Export => "export/",
    }
}

fn mermaid(
    text: &mut String,
    inputs: &[(String, String, Stage)],
    edges: &[Edge],
    state: impl Fn(Stage) -> String,
    is_stale: impl Fn(Stage) -> bool,
) -> std::fmt::Result {
    // Mermaid uses HTML entities inside quotes.
    let quoted = |words: &str| {
        words.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
    };
    writeln!(text, "flowchart LR")?;
    for (id, words, _) in inputs {
        writeln!(text, "    {id}([\"{}\"])", quoted(words))?;
    }
    for stage in Stage::ALL {
        writeln!(text, "    {stage}[\"{stage}<br/>{}\"]", quoted(&state(stage)))?;
    }
    for Edge { from, to, what } in edges {
        let label = if what.is_empty() { String::new() } else { format!("|{what}|") };
        writeln!(text, "    {from} -->{label} {to}")?;
    }
    writeln!(text, "    classDef stale stroke-dasharray: 4 3")?;
    Stage::ALL
        .into_iter()
        .filter(|stage| is_stale(*stage))
        .try_for_each(|stage| writeln!(text, "    class {stage} stale"))
}

fn dot(
    text: &mut String,
    inputs: &[(String, String, Stage)],
    edges: &[Edge],
    state: impl Fn(Stage) -> String,
    is_stale: impl Fn(Stage) -> bool,
) -> std::fmt::Result {
    let quoted = |words: &str| words.replace('\\', "\\\\").replace('"', "\\\"");
    writeln!(text, "digraph stages {{\n    rankdir=LR\n    node [shape=box]")?;
    for (id, words, _) in inputs {
        writeln!(text, "    {id} [label=\"{}\", shape=ellipse]", quoted(words))?;
    }
    for stage in Stage::ALL {
        let style = if is_stale(stage) { ", style=dashed" } else { "" };
        writeln!(text, "    {stage} [label=\"{stage}\\n{}\"{style}]", quoted(&state(stage)))?;
    }
    for Edge { from, to, what } in edges {
        writeln!(text, "    {from} -> {to} [label=\"{what}\"]")?;
    }
    writeln!(text, "}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Reason;
    use oss_config::Builtin;

    fn drawn(language: Language) -> String {
        let mut experiment = Experiment::default();
        experiment.dataset.builtin = Some(Builtin::Stories);
        experiment.model.init_from = Some("a \"quoted\" <name>".into());
        let stages = Stage::ALL.map(|stage| PlannedStage {
            stage,
            freshness: match stage {
                Stage::Prepare => Freshness::Fresh { note: None },
                _ => Freshness::Stale { reason: Reason::NeverRan },
            },
        });
        draw(&experiment, Some(&stages), language)
    }

    #[test]
    fn every_format_shows_the_same_graph() {
        insta::assert_snapshot!(drawn(Language::Text), @r#"
        prepare    text of main -> tokens
                   fresh
        train      weights of a "quoted" <name> + tokens -> checkpoints/, metrics.jsonl
                   stale: never ran
        evaluate   validation tokens + weights -> evaluation.json
                   stale: never ran
        sample     weights -> samples/
                   stale: never ran
        export     weights -> export/
                   stale: never ran
        "#);
        insta::assert_snapshot!(drawn(Language::Mermaid), @r#"
        flowchart LR
            text0(["text of main"])
            first(["weights of a &quot;quoted&quot; &lt;name&gt;"])
            prepare["prepare<br/>fresh"]
            train["train<br/>stale: never ran"]
            evaluate["evaluate<br/>stale: never ran"]
            sample["sample<br/>stale: never ran"]
            export["export<br/>stale: never ran"]
            text0 --> prepare
            first --> train
            prepare -->|tokens| train
            prepare -->|validation tokens| evaluate
            train -->|weights| evaluate
            train -->|weights| sample
            train -->|weights| export
            classDef stale stroke-dasharray: 4 3
            class train stale
            class evaluate stale
            class sample stale
            class export stale
        "#);
        insta::assert_snapshot!(drawn(Language::Dot), @r#"
        digraph stages {
            rankdir=LR
            node [shape=box]
            text0 [label="text of main", shape=ellipse]
            first [label="weights of a \"quoted\" <name>", shape=ellipse]
            prepare [label="prepare\nfresh"]
            train [label="train\nstale: never ran", style=dashed]
            evaluate [label="evaluate\nstale: never ran", style=dashed]
            sample [label="sample\nstale: never ran", style=dashed]
            export [label="export\nstale: never ran", style=dashed]
            text0 -> prepare [label=""]
            first -> train [label=""]
            prepare -> train [label="tokens"]
            prepare -> evaluate [label="validation tokens"]
            train -> evaluate [label="weights"]
            train -> sample [label="weights"]
            train -> export [label="weights"]
        }
        "#);
    }
}
