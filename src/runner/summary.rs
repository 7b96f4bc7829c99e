//! The outcome of an execution: where the outputs are, and how good the model is.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::plan::{Freshness, Graph, PlannedStage, Stage};
use crate::stages::evaluate::Report;
use oss_runs::run_dir::Manifest;

/// One stage of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageSummary {
    /// The stage.
    pub stage: Stage,
    /// Whether it ran.
    pub ran: bool,
    /// Why it ran, or a note if it did not.
    pub reason: Option<String>,
}

impl StageSummary {
    /// The outcome of a stage, as planned.
    pub fn of(planned: &PlannedStage) -> Self {
        let stage = planned.stage;
        match &planned.freshness {
            Freshness::Fresh { note } => Self { stage, ran: false, reason: note.clone() },
            Freshness::Stale { reason } => Self { stage, ran: true, reason: Some(reason.to_string()) },
        }
    }
}

/// The outcome of an execution and the paths of its outputs. Outputs that do not exist yet are left out.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Name of the experiment.
    pub name: String,
    /// Run id.
    pub id: String,
    /// The run's directory.
    pub run: PathBuf,
    /// Each stage, in order.
    pub stages: Vec<StageSummary>,
    /// The exported model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// The samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<PathBuf>,
    /// Steps without an update, because the loss or the gradient was not finite.
    pub skipped_steps: u64,
    /// The number of steps of the run.
    pub steps: u64,
    /// The TensorBoard log directory.
    pub tensorboard: PathBuf,
    /// The evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Report>,
}

impl Summary {
    /// Collects the outputs of the run.
    ///
    /// # Errors
    /// Never: what cannot be read is left out.
    pub fn of(graph: &Graph, stages: Vec<StageSummary>) -> Result<Self> {
        let run = &graph.identity.run;
        let there = |path: PathBuf| path.exists().then_some(path);
        let evaluation = fs::read(run.evaluation()).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self {
            name: graph.experiment.run.name.clone().unwrap_or_default(),
            id: run.id(),
            run: run.root().to_owned(),
            stages,
            model: there(run.export()),
            samples: there(run.samples().join("final.txt")),
            skipped_steps: Manifest::load(run).map_or(0, |manifest| manifest.skipped_steps()),
            steps: graph.experiment.train.steps,
            tensorboard: run.tensorboard(),
            evaluation,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Report { nats_per_byte, bits_per_byte, evaluation, .. }) = &self.evaluation {
            writeln!(
                f,
                "validation {:.4} nats per token (perplexity {:.2}), {nats_per_byte:.4} nats per byte, \
                 {bits_per_byte:.4} bits per byte",
                evaluation.loss, evaluation.perplexity
            )?;
        }
        if self.skipped_steps > 0 {
            writeln!(
                f,
                "skipped    {} of {} steps, whose loss or gradient was not finite",
                self.skipped_steps, self.steps
            )?;
        }
        for (name, path) in [("model", &self.model), ("samples", &self.samples)] {
            if let Some(path) = path {
                writeln!(f, "{name:<10} {}", path.display())?;
            }
        }
        // With the name's directory, TensorBoard shows the run by its id, next to those it can be compared with.
        let runs = self.run.parent().unwrap_or(&self.run);
        write!(f, "watch      tensorboard --logdir {}", runs.display())
    }
}
