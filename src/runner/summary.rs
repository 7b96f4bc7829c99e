//! What a walk leaves its user with: where things are, and how good the model is.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::plan::{Freshness, Graph, PlannedStage, Stage};
use crate::stages::evaluate::Report;

/// One stage of a walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageSummary {
    /// The stage.
    pub stage: Stage,
    /// Whether it ran.
    pub ran: bool,
    /// Why it ran, or what there is to know although it did not.
    pub reason: Option<String>,
}

impl StageSummary {
    /// A stage and what was done about it, which is what was planned.
    pub fn of(planned: &PlannedStage) -> Self {
        let stage = planned.stage;
        match &planned.freshness {
            Freshness::Fresh { note } => Self { stage, ran: false, reason: note.clone() },
            Freshness::Stale { reason } => Self { stage, ran: true, reason: Some(reason.to_string()) },
        }
    }
}

/// How a walk ended, and where its fruits are. What is not there yet is left out.
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
    /// What it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<PathBuf>,
    /// Folder for TensorBoard.
    pub tensorboard: PathBuf,
    /// Its validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Report>,
}

impl Summary {
    /// Looks at what the run has.
    ///
    /// # Errors
    /// None: what cannot be read is left out.
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
                "validation {:.4} nats a token (perplexity {:.2}), {nats_per_byte:.4} nats a byte, {bits_per_byte:.4} \
                 bits a byte",
                evaluation.loss, evaluation.perplexity
            )?;
        }
        for (name, path) in [("model", &self.model), ("samples", &self.samples)] {
            if let Some(path) = path {
                writeln!(f, "{name:<10} {}", path.display())?;
            }
        }
        write!(f, "watch      tensorboard --logdir {}", self.tensorboard.display())
    }
}
