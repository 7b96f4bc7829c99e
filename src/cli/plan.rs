//! `oss-run plan`: what a run would do, and what it costs.

use anyhow::Result;
use clap::Args;
use indicatif::{BinaryBytes, HumanCount, HumanDuration};
use serde::Serialize;

use super::output::{print, print_json};
use super::run::Experiment;
use super::table::table;
use crate::data::Prepared;
use crate::data::sources::Watch;
use crate::experiment::{self, Explained};
use crate::interrupt;
use crate::plan::estimate::{Estimate, estimate};
use crate::plan::identity::steps_taken;
use crate::plan::memory::{Disk, Memory, disk, memory};
use crate::plan::pace::Pace;
use crate::plan::{self, Choices, Graph, PlannedStage, Reach};
use crate::run_dir::RunsDir;

/// What it takes.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
    /// Show every value and where it came from, defaults too
    #[arg(long)]
    explain: bool,
    /// Print the plan as one JSON document
    #[arg(long)]
    json: bool,
}

/// A plan, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Plan {
    /// Every value.
    experiment: experiment::Experiment,
    /// Where each value came from.
    values: Vec<Explained>,
    /// The run; none while the text is unknown.
    run: Option<PlannedRun>,
    /// Each stage; none while the text is unknown.
    stages: Option<Vec<PlannedStage>>,
    #[serde(flatten)]
    estimate: Estimate,
    /// Passes over the training text; known once it is prepared.
    epochs: Option<f64>,
    /// Of each rank.
    memory: Memory,
    disk: Disk,
    /// Known once the run has taken a step.
    pace: Option<Pace>,
}

#[derive(Debug, Serialize)]
struct PlannedRun {
    id: String,
    directory: std::path::PathBuf,
    exists: bool,
    steps_taken: u64,
}

/// Plans and prints. Nothing is downloaded or allocated; digests of local files are remembered for the run.
pub fn plan(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let resolved = arguments.experiment.load()?;
    let experiment = plan::with_vocabulary(&resolved.experiment)?;
    let watch = Watch { keep_going: &|| Ok(interrupt::check()?), progress: &|_| () };
    let graph = plan::graph(experiment.clone(), runs, &Choices::default(), Reach::Local(watch))?;
    let stages = graph.as_ref().map(|graph| plan::stages(graph, &[])).transpose()?;
    let estimate = estimate(&experiment);
    let taken = graph.as_ref().map_or(0, |graph| steps_taken(&graph.identity.run));
    let left = estimate.tokens.saturating_sub(taken * estimate.tokens_per_step);
    let planned = Plan {
        values: resolved.explain(),
        run: graph.as_ref().map(|graph| PlannedRun {
            id: graph.identity.run.id(),
            directory: graph.identity.run.root().to_owned(),
            exists: graph.identity.manifest.is_some(),
            steps_taken: taken,
        }),
        stages,
        epochs: graph.as_ref().and_then(training_tokens).map(|tokens| estimate.tokens as f64 / tokens as f64),
        memory: memory(&experiment),
        disk: disk(&experiment),
        pace: graph.as_ref().and_then(|graph| Pace::of(&graph.identity.run, left)),
        estimate,
        experiment,
    };
    if arguments.json { print_json(&planned) } else { print(&planned.show(arguments.explain)) }
}

/// Tokens of all prepared training sources; none while one of them is not prepared.
fn training_tokens(graph: &Graph) -> Option<u64> {
    let prepared = graph.prepared_sources().ok()?;
    let tokens =
        |key: &plan::keys::Key| Some(Prepared::open(&graph.runs.prepared(&key.0)).ok()?.index().train.tokens);
    prepared.iter().map(tokens).sum()
}

impl Plan {
    fn show(&self, explain: bool) -> String {
        // A preset is shown as the fields that it sets.
        let is_set = |value: &Explained| value.set_by.is_explicit() && value.value.is_some();
        let shown = self.values.iter().filter(|value| explain || is_set(value));
        let values = shown
            .map(|value| {
                let text = value.value.clone().unwrap_or_else(|| "unset".to_owned());
                vec![value.key.clone(), text, value.set_by.to_string()]
            })
            .collect();
        let mut text = table(&["value", "", "set by"], values, &[]);
        text.push('\n');
        text.push_str(&match &self.run {
            Some(run) if run.exists => {
                format!(
                    "run {} (step {} of {})\n",
                    run.directory.display(),
                    run.steps_taken,
                    self.experiment.train.steps
                )
            }
            Some(run) => format!("run {} (new)\n", run.directory.display()),
            None => "run unknown until prepared: the hub has to be asked for the text's commit\n".to_owned(),
        });
        for PlannedStage { stage, freshness } in self.stages.iter().flatten() {
            text.push_str(&format!("  {stage:<10} {freshness}\n"));
        }
        text.push('\n');
        text.push_str(&self.costs());
        text
    }

    fn costs(&self) -> String {
        let count = |number: i64| HumanCount(number.unsigned_abs()).to_string();
        let bytes = |number: u64| BinaryBytes(number).to_string();
        let Estimate { parameters, flops_per_token, flops, tokens_per_step, tokens } = &self.estimate;
        let row = |what: &str, amount: String, note: &str| vec![what.to_owned(), amount, note.to_owned()];
        let mut rows = vec![
            row("parameters", count(parameters.total), ""),
            row("  active", count(parameters.active), "a token's matrix products; without the embedding"),
            row("  embedding", count(parameters.embedding), ""),
            row("  attention", count(parameters.attention), ""),
            row("  experts", count(parameters.experts), ""),
            row("  router", count(parameters.router), ""),
            row("  norm", count(parameters.norm), ""),
            row("  head", count(parameters.head), ""),
            row("memory a rank", bytes(self.memory.total()), &ranks(&self.experiment)),
            row("  weights", bytes(self.memory.weights), ""),
            row("  working weights", bytes(self.memory.working_weights), ""),
            row("  gradients", bytes(self.memory.gradients), ""),
            row("  optimizer", bytes(self.memory.optimizer), ""),
            row("  activations", bytes(self.memory.activations), "estimated"),
            row("  logits", bytes(self.memory.logits), "at most"),
            row("FLOPs a token", scaled(*flops_per_token), "forward and backward"),
            row("FLOPs in all", scaled(*flops), ""),
            row("tokens a step", HumanCount(*tokens_per_step).to_string(), ""),
            row(
                "tokens in all",
                HumanCount(*tokens).to_string(),
                &format!("{} steps", self.experiment.train.steps),
            ),
            row(
                "epochs",
                self.epochs.map_or("unknown until prepared".to_owned(), |epochs| format!("{epochs:.2}")),
                "",
            ),
            row("disk", bytes(self.disk.total()), "up to the end"),
            row(
                "  a checkpoint",
                bytes(self.disk.checkpoint),
                &format!("{} at once", self.disk.num_checkpoints),
            ),
            row("  the export", bytes(self.disk.export), ""),
        ];
        rows.push(match self.pace {
            Some(pace) => row(
                "time left",
                HumanDuration(pace.left()).to_string(),
                &format!("at {:.0} tokens/s, as measured in this run", pace.tokens_per_second),
            ),
            None => row("time", "unknown until the first steps".to_owned(), ""),
        });
        table(&[], rows, &[1])
    }
}

/// A number with three digits and a prefix: 22.9 G.
fn scaled(number: f64) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"];
    let last = prefixes.len() - 1;
    let power = prefixes.iter().enumerate().position(|(power, _)| number < 1000f64.powi(power as i32 + 1));
    let power = power.unwrap_or(last);
    format!("{:.1} {}", number / 1000f64.powi(power as i32), prefixes[power])
}

fn ranks(experiment: &experiment::Experiment) -> String {
    match experiment.sharding.ranks {
        1 => "one rank".to_owned(),
        ranks => format!("{ranks} ranks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_scaled() {
        for (number, text) in [(5.0, "5.0 "), (22.93e9, "22.9 G"), (1e24, "1000.0 Z")] {
            assert_eq!(scaled(number), text);
        }
    }
}
