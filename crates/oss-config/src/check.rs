//! Combinations of values that cannot work, or that look like mistakes.

mod model;
mod text;
mod training;

use super::shape::{self, Shape};
use super::{CheckpointChoice, Experiment, NamedCheckpoint, parse_bytes, run::Log};

/// A problem with a combination of values.
#[derive(Debug)]
pub(super) struct Finding {
    /// The keys involved, most likely culprit first.
    pub keys: Vec<String>,
    pub message: String,
    pub fix: String,
    pub is_warning: bool,
}

struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, keys: &[&str], message: impl Into<String>, fix: impl Into<String>) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.0.push(Finding { keys, message: message.into(), fix: fix.into(), is_warning: false });
    }

    fn warning(&mut self, keys: &[&str], message: impl Into<String>, fix: impl Into<String>) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.0.push(Finding { keys, message: message.into(), fix: fix.into(), is_warning: true });
    }
}

/// All errors and warnings. Bounds of single values have already been checked.
pub(super) fn findings(experiment: &Experiment) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    run(experiment, &mut found);
    text::dataset(&experiment.dataset, &mut found);
    text::validation(experiment, &mut found);
    model::model(&experiment.model, &mut found);
    training::optimizer(&experiment.optimizer, &mut found);
    training::updates(experiment, &mut found);
    training::schedule(&experiment.schedule, experiment.train.steps, &mut found);
    training::batches(experiment, &mut found);
    training::device(experiment, &mut found);
    outputs(experiment, &mut found);
    log(&experiment.log, &mut found);
    found.0
}

fn run(experiment: &Experiment, found: &mut Findings) {
    if let Some(name) = &experiment.run.name
        && let Some(fault) = unsafe_name(name)
    {
        let fix = "set run.name to letters, digits, `-`, `_` and `.`";
        found.error(&["run.name"], format!("a run cannot be named {name:?}: {fault}"), fix);
    } else if experiment.run.name.as_deref() == Some("last") {
        found.error(
            &["run.name"],
            "a run cannot be named `last`, which means the most recent run",
            "set run.name",
        );
    }
}

fn log(log: &Log, found: &mut Findings) {
    let exists = |key: &str| !matches!(shape::experiment().at(key.split('.')), None | Some(Shape::Table(_)));
    for key in log.hparams.iter().filter(|key| !exists(key)) {
        let message = format!("`log.hparams` names `{key}`, which is not a key");
        found.error(&["log.hparams"], message, "name keys of the experiment file, such as \"optimizer.lr\"");
    }
}

/// Why `name` cannot be the name of a single directory.
fn unsafe_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        _ if name.starts_with('.') => Some("it starts with a dot"),
        _ if name.starts_with('-') => Some("it starts with a dash"),
        _ if name.contains(['/', '\\']) => Some("it contains a slash"),
        _ if name.chars().any(char::is_control) => Some("it contains a control character"),
        _ if name.len() > 100 => Some("it is longer than 100 bytes"),
        _ => None,
    }
}

fn outputs(experiment: &Experiment, found: &mut Findings) {
    let Experiment { train, checkpoint, evaluate, export, .. } = experiment;
    if checkpoint.keep_best && evaluate.every_steps == 0 {
        let keys = ["checkpoint.keep_best", "evaluate.every_steps"];
        let message = "`checkpoint.keep_best` needs evaluations during training, which are off";
        found.error(&keys, message, "set evaluate.every_steps, or checkpoint.keep_best = false");
    }
    if evaluate.patience.is_some() {
        let validation = &experiment.dataset.validation;
        if evaluate.every_steps == 0 || validation.fraction == 0.0 && validation.origin().is_none() {
            let keys = ["evaluate.patience", "evaluate.every_steps", "dataset.validation.fraction"];
            let message = "`evaluate.patience` needs evaluations during training, but there are none";
            found.error(&keys, message, "set evaluate.every_steps and dataset.validation.fraction above 0");
        } else if !checkpoint.keep_best {
            let keys = ["evaluate.patience", "checkpoint.keep_best"];
            let message = "training that runs out of patience ends some evaluations after its best weights, which are \
                           not kept";
            let fix = "set checkpoint.keep_best = true, and export.checkpoint = \"best\" to export them";
            found.warning(&keys, message, fix);
        }
    }
    match export.checkpoint {
        CheckpointChoice::Named(NamedCheckpoint::Best) if !checkpoint.keep_best => {
            let keys = ["export.checkpoint", "checkpoint.keep_best"];
            let fix = "set checkpoint.keep_best = true, or export.checkpoint = \"last\"";
            found.error(&keys, "the best checkpoint is selected for export, but it is not kept", fix);
        }
        CheckpointChoice::Step(step)
            if step > train.steps || (step % checkpoint.every_steps != 0 && step != train.steps) =>
        {
            let keys = ["export.checkpoint", "checkpoint.every_steps", "train.steps"];
            let message = format!(
                "step {step} is selected for export, but checkpoints are written every {} steps up to step {}",
                checkpoint.every_steps, train.steps
            );
            found.error(&keys, message, "choose a step that has a checkpoint, or \"last\"");
        }
        _ => {}
    }
    if parse_bytes(&export.max_shard_size).is_none() {
        let message = format!("invalid size {:?} for `export.max_shard_size`", export.max_shard_size);
        found.error(
            &["export.max_shard_size"],
            message,
            "write a number and a unit, such as \"5GB\" or \"500MiB\"",
        );
    }
}
