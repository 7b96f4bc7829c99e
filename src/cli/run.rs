//! `oss-run run`: run the stages of an experiment that are not up to date.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::arguments::Common;
use super::completions;
use super::output::print_json;
use super::ranks::{Task, led};
use super::sweep;
use crate::plan::{Choices, Stage};
use crate::runner::{Execution, Options, Summary};
use oss_config::error::UserError;
use oss_config::{Overrides, Resolved, Wanted, url_problem};
use oss_train::distributed::{TIED, exit_with_parent, is_launched};

/// An experiment file and overrides.
#[derive(Debug, Args)]
pub struct Experiment {
    /// Experiment file
    #[arg(value_name = "EXPERIMENT.toml", add = completions::experiments())]
    file: PathBuf,
    /// Override a value, such as optimizer.lr=1e-3; may be given several times
    #[arg(long, value_name = "KEY=VALUE", add = completions::overrides())]
    set: Vec<String>,
    /// Reset a key to its default; may be given several times
    #[arg(long, value_name = "KEY", add = completions::keys())]
    unset: Vec<String>,
}

impl Experiment {
    /// Loads the file with all overrides, and prints warnings.
    ///
    /// # Errors
    /// The file does not exist, or the experiment is invalid.
    pub fn load(&self) -> Result<Resolved> {
        if !self.file.is_file() {
            return Err(missing(&self.file).into());
        }
        let resolved = oss_config::load(&self.file, &self.overrides())?;
        for warning in &resolved.warnings {
            match is_launched(&|name| env::var(name).ok()) {
                // The launcher has already printed it.
                true => tracing::debug!("{warning}"),
                false => tracing::warn!("{warning}"),
            }
        }
        Ok(resolved)
    }

    /// The overrides from the command line and the environment.
    pub fn overrides(&self) -> Overrides {
        Overrides { set: self.set.clone(), unset: self.unset.clone(), environment: true }
    }
}

/// The error for a missing file, with the closest match among the existing ones.
fn missing(file: &Path) -> UserError {
    let shown = file.display();
    if let Some((message, fix)) = url_problem(&shown.to_string(), Wanted::Experiment) {
        return UserError::wrong(message).hint(fix);
    }
    let shipped = experiments_in(Path::new("experiments"));
    if file.is_dir() {
        let inside = experiments_in(file);
        let known = if inside.is_empty() { &shipped } else { &inside };
        return UserError::wrong(format!("{shown} is a directory, not an experiment file"))
            .hint(available(known));
    }
    let stem =
        |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let wanted = stem(file);
    let likeness = |path: &String| strsim::jaro_winkler(&wanted, &stem(Path::new(path)));
    let beside = experiments_in(file.parent().unwrap_or(Path::new("")));
    let nearest = beside
        .iter()
        .chain(&shipped)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|path| likeness(path) > 0.8);
    let fix = nearest.map_or_else(|| available(&shipped), |nearest| format!("did you mean {nearest}?"));
    UserError::wrong(format!("no experiment file {shown}")).hint(fix)
}

fn available(experiments: &[String]) -> String {
    match experiments {
        [] => "pass the path of an experiment file; `oss-run init NAME` writes one".to_owned(),
        known => format!("available: {}", known.join(", ")),
    }
}

/// The TOML files in a directory.
fn experiments_in(folder: &Path) -> Vec<String> {
    let entries = Path::new(".").join(folder).read_dir().into_iter().flatten().flatten();
    let mut known: Vec<String> = entries
        .map(|entry| folder.join(entry.file_name()))
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .map(|path| path.display().to_string())
        .collect();
    known.sort();
    known
}

/// Arguments of `oss-run run`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
    /// Stop after this stage
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = Stage::Export, hide_default_value = true)]
    until: Stage,
    /// Run this stage even if it is up to date; training starts over
    #[arg(long, value_name = "STAGE", value_enum)]
    force: Vec<Stage>,
    /// Start a new run of the same experiment
    #[arg(long)]
    new: bool,
    /// Stop training after step N without changing the schedule
    #[arg(long, value_name = "N")]
    stop_at_step: Option<u64>,
    /// Train even if memory or disk space seems insufficient
    #[arg(long)]
    force_start: bool,
    /// Print the outcome as one JSON document
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The command line that resumes this command in its run.
    fn resumed(&self, run: &Path, common: &Common) -> Vec<OsString> {
        let mut line = common.line();
        line.extend(["resume".into(), run.into(), "--until".into(), self.until.name().into()]);
        if let Some(step) = self.stop_at_step {
            line.extend(["--stop-at-step".into(), step.to_string().into()]);
        }
        if self.force_start {
            line.push("--force-start".into());
        }
        if self.json {
            line.push("--json".into());
        }
        line
    }
}

/// Runs the experiment, or the trials of a sweep.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let runs = &common.runs();
    let resolved = arguments.experiment.load()?;
    if resolved.sweep.is_some() {
        let Arguments { until, force, new, stop_at_step, .. } = arguments;
        if *until != Stage::Export || !force.is_empty() || *new || stop_at_step.is_some() {
            let fix = "set sweep.until, or resume a single trial with `oss-run resume RUN`";
            return Err(UserError::wrong(
                "--until, --force, --new and --stop-at-step do not apply to sweeps",
            )
            .hint(fix)
            .into());
        }
        let overrides = arguments.experiment.overrides();
        return sweep::start(&resolved, &overrides, &sweep::Choices::default(), arguments.json, runs);
    }
    if is_tied() {
        exit_with_parent().context("cannot make this trial exit with its sweep")?;
    }
    let options = Options {
        choices: Choices { until: arguments.until, force: arguments.force.clone(), new: arguments.new },
        stop_at_step: arguments.stop_at_step,
        force_start: arguments.force_start,
    };
    let task = Task {
        experiment: &resolved.experiment,
        arguments,
        resumed: Some(&|run| arguments.resumed(run, common)),
    };
    let plan = || Execution::of(&resolved, runs, options);
    let ended = led(&task, plan, Execution::has_work, Execution::run)?;
    ended.map_or(Ok(()), |summary| finish(&summary, arguments.json))
}

/// Whether a sweep started this process; ranks are tied to their own launcher instead.
fn is_tied() -> bool {
    env::var_os(TIED).is_some() && !is_launched(&|name| env::var(name).ok())
}

/// Prints the outcome, as text or JSON.
pub fn finish(summary: &Summary, json: bool) -> Result<()> {
    if json {
        return print_json(summary);
    }
    for line in summary.to_string().lines() {
        tracing::info!("{line}");
    }
    Ok(())
}
