//! `oss-run sweep`: run the trials of a sweep.

use std::env;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::arguments::Common;
use super::output::{print, print_json};
use super::run::Experiment;
use super::table::Layout;
use crate::sweep::{Group, Plan, Results, SweepError, TrialResult, TrialStatus, cell};
use oss_config::error::UserError;
use oss_config::{Overrides, Resolved};
use oss_runs::run_dir::RunsDir;
use oss_train::distributed::RankEnv;

/// Arguments of `oss-run sweep`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
    #[command(flatten)]
    choices: Choices,
    /// Print the state of every trial as one JSON document
    #[arg(long)]
    json: bool,
}

/// Options for running the sweep.
#[derive(Debug, Default, Args)]
pub struct Choices {
    /// Number of trials to run in parallel [default: sweep.parallel]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    parallel: Option<u64>,
    /// Retry failed trials
    #[arg(long)]
    retry_failed: bool,
    /// Only show the trials and their state
    #[arg(long)]
    dry_run: bool,
}

/// Runs the sweep.
pub fn sweep(arguments: &Arguments, common: &Common) -> Result<()> {
    let Arguments { experiment, choices, json } = arguments;
    start(&experiment.load()?, &experiment.overrides(), choices, *json, &common.runs())
}

/// Runs the sweep of the experiment that `resolved` was loaded from, with the same `overrides`.
///
/// # Errors
/// The file has no sweep; those of [`Plan::new`] and [`Plan::run`]; trials failed.
pub fn start(
    resolved: &Resolved,
    overrides: &Overrides,
    choices: &Choices,
    json: bool,
    runs: &RunsDir,
) -> Result<()> {
    let Some(mut sweep) = resolved.sweep.clone() else {
        return Err(SweepError::NoSweep { file: resolved.file.clone() }.into());
    };
    if RankEnv::from_env(&|name| env::var(name).ok())?.is_some() {
        return Err(SweepError::Launched.into());
    }
    sweep.parallel = choices.parallel.or(sweep.parallel);
    let plan = Plan::new(resolved, overrides, sweep, runs)?;
    let before = plan.results()?;
    tracing::info!(
        "sweep      {}: {} trials of {}, {} done",
        plan.dir().display(),
        plan.trials.len(),
        plan.sweep.keys().join(", "),
        before.count(TrialStatus::DONE)
    );
    let results = if choices.dry_run { before } else { plan.run(choices.retry_failed)? };
    if json {
        print_json(&results)?;
    } else {
        print(&shown(&results))?;
    }
    let runs = plan.dir().parent().unwrap_or(plan.dir());
    tracing::info!("watch      tensorboard --logdir {}", runs.display());
    let failed = results.count(TrialStatus::FAILED);
    if failed > 0 && !choices.dry_run {
        bail!(
            UserError::failed(format!("{failed} of {} trials failed", results.trials.len()))
                .hint("fix the errors in the table and rerun with --retry-failed")
        );
    }
    Ok(())
}

fn shown(results: &Results) -> String {
    let metric = results.metric.name();
    let keys: Vec<&String> = results.trials.first().map_or(Vec::new(), |row| row.values.keys().collect());
    let mut header = vec!["trial", "run"];
    header.extend(keys.iter().map(|key| key.as_str()));
    header.extend([metric, "step", "state"]);
    let numbers: Vec<usize> = (2..=keys.len() + 3).chain([0]).collect();
    let row = |row: &&TrialResult| {
        let mut cells = vec![row.trial.to_string(), row.run.clone()];
        cells.extend(keys.iter().map(|key| row.values.get(*key).map_or(String::new(), cell)));
        cells.push(row.value.map_or("-".to_owned(), |value| format!("{value:.4}")));
        cells.push(format!("{} of {}", row.step, row.steps));
        cells.push(match (&row.error, results.best.as_ref() == Some(&row.run)) {
            (Some(error), _) => format!("failed: {error}"),
            (None, true) => "done, best".to_owned(),
            (None, false) => row.status.word().to_owned(),
        });
        cells
    };
    let (run, step) = (1, keys.len() + 3);
    let values: Vec<usize> = (2..keys.len() + 2).collect();
    let layout = Layout {
        header: &header,
        right: &numbers,
        optional: &[step, run],
        elastic: &values,
        text: true,
        ..Layout::default()
    };
    let rows: Vec<Vec<String>> = results.ranked().iter().map(row).collect();
    let mut text = layout.to_terminal(&rows);
    if results.groups.iter().any(|group| group.seeds > 1) {
        text.push('\n');
        text.push_str(&seeds(&results.groups, metric));
    }
    text.push_str(&format!(
        "\n{} of {} steps taken ({:.0}%)\n",
        results.steps_taken,
        results.steps,
        100.0 * results.steps_taken as f64 / results.steps.max(1) as f64
    ));
    text
}

/// Means over `run.seed`.
fn seeds(groups: &[Group], metric: &str) -> String {
    let keys: Vec<&String> = groups.first().map_or(Vec::new(), |group| group.values.keys().collect());
    let mean = format!("{metric}, mean");
    let mut header: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
    header.extend([mean.as_str(), "std dev", "seeds"]);
    let rows = groups.iter().map(|group| {
        let value =
            |key: &&String| group.values.get(*key).map(|value: &Value| cell(value)).unwrap_or_default();
        let mut cells: Vec<String> = keys.iter().map(value).collect();
        cells.push(format!("{:.4}", group.mean));
        cells.push(group.deviation.map_or("-".to_owned(), |deviation| format!("{deviation:.4}")));
        cells.push(group.seeds.to_string());
        cells
    });
    let numbers: Vec<usize> = (0..keys.len() + 3).collect();
    let (right, elastic) = (&numbers[..], &numbers[..keys.len()]);
    Layout { header: &header, right, elastic, ..Layout::default() }.to_terminal(&rows.collect::<Vec<_>>())
}
