//! `[sweep]`: many trials from one file.

mod read;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shape::{self, Shape};
pub(super) use read::{Swept, read};

/// The values of one trial, by key of the experiment file.
pub type Values = BTreeMap<String, Value>;

/// Many runs of one experiment that differ in a few values. The file's other sections override `base`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    /// Experiment file that every trial starts from, relative to this file. This file's own sections override it, as
    /// with `extends`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// How trials are chosen.
    pub method: SweepMethod,
    /// Values to vary: for each key of the experiment file (such as `"optimizer.lr"`), a list of values or, with
    /// `method = "random"`, a range.
    pub parameters: BTreeMap<String, Candidates>,
    /// list: the values of each trial, by key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Values>,
    /// random: total number of trials. If it is raised later, only the new trials run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub num_trials: Option<u64>,
    /// random: seed for drawing the values. It does not set the seed of the trials, which is `run.seed`.
    pub seed: u64,
    /// Combinations to skip: those that match every key of one of these tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<BTreeMap<String, Condition>>,
    /// Metric that trials are compared by.
    pub metric: SweepMetric,
    /// Whether to minimize or maximize the metric; the default depends on the metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Last stage to run for each trial that completes its training.
    pub until: LastStage,
    /// Number of trials to run concurrently. The cores or GPUs are divided among them.
    #[schemars(range(min = 1))]
    pub parallel: Option<u64>,
    /// What to do with the remaining trials when one fails.
    pub on_failure: OnFailure,
    /// Stop unpromising trials early by successive halving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halving: Option<Halving>,
}

/// How trials are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepMethod {
    /// Every combination of the values in `parameters`.
    #[default]
    Grid,
    /// `num_trials` draws from `parameters`.
    Random,
    /// The trials listed in `trials`.
    List,
}

/// The values a parameter is chosen from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Candidates {
    /// One of these values.
    Choice(Vec<Value>),
    /// A number between two others.
    Range(Range),
}

/// A range to draw from: integers for integer keys, otherwise numbers rounded to four significant digits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Lower bound.
    pub min: f64,
    /// Upper bound.
    pub max: f64,
    /// Draw uniformly on a log scale, as for learning rates.
    #[serde(default)]
    pub log: bool,
    /// Draw only `min` plus multiples of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: Option<f64>,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Condition {
    /// A number within these bounds.
    Between(Between),
    /// One of these values.
    OneOf(Vec<Value>),
    /// Exactly this value.
    Is(Value),
}

/// Inclusive bounds; either can be omitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// Lower bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Upper bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Metrics from `metrics.jsonl` that trials can be compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SweepMetric {
    /// Validation loss, in nats per token.
    #[default]
    ValLoss,
    /// Validation loss, in nats per byte; comparable across tokenizers.
    ValNatsPerByte,
    /// Training loss at the last logged step; noisy.
    Loss,
    /// Throughput at the last logged step.
    TokensPerSecond,
    /// Peak memory.
    PeakMemoryBytes,
}

impl SweepMetric {
    /// Its name in `metrics.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ValLoss => "val_loss",
            Self::ValNatsPerByte => "val_nats_per_byte",
            Self::Loss => "loss",
            Self::TokensPerSecond => "tokens_per_second",
            Self::PeakMemoryBytes => "peak_memory_bytes",
        }
    }

    /// Whether it is computed by evaluations.
    pub fn is_validation(self) -> bool {
        matches!(self, Self::ValLoss | Self::ValNatsPerByte)
    }
}

/// Whether a lower or a higher metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Lower is better.
    Minimize,
    /// Higher is better.
    Maximize,
}

/// The last stage of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LastStage {
    /// Training only.
    Train,
    /// Also compute the loss on the full validation text.
    #[default]
    Evaluate,
    /// Also generate samples.
    Sample,
    /// Run all stages.
    Export,
}

/// What to do with the remaining trials when one fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Run them; the results show the failure.
    #[default]
    Continue,
    /// Stop the sweep.
    Stop,
}

/// Successive halving: all trials train to the first rung, the best of them to the next, and so on (arXiv:1502.07943).
/// The learning rate schedule is that of the full run at every rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Halving {
    /// Steps at the first rung; each further rung has `reduction_factor` times as many.
    #[schemars(range(min = 1))]
    pub min_steps: u64,
    /// At each rung, one in this many trials is promoted.
    #[serde(default = "three")]
    #[schemars(range(min = 2))]
    pub reduction_factor: u64,
    /// Promote a trial as soon as it is among the best of those that have reached its rung (ASHA, arXiv:1810.05934),
    /// instead of waiting for all of them. By default, this is on if trials run in parallel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<bool>,
}

fn three() -> u64 {
    3
}

impl Sweep {
    /// The direction, or the metric's own if it is not set.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or(match self.metric {
            SweepMetric::TokensPerSecond => Direction::Maximize,
            _ => Direction::Minimize,
        })
    }

    /// Number of concurrent trials.
    pub fn parallel(&self) -> u64 {
        self.parallel.unwrap_or(1)
    }

    /// The keys that are varied, in order.
    pub fn keys(&self) -> Vec<&str> {
        match self.method {
            SweepMethod::List => {
                let mut keys: Vec<&str> =
                    self.trials.iter().flat_map(|trial| trial.keys().map(String::as_str)).collect();
                keys.sort_unstable();
                keys.dedup();
                keys
            }
            SweepMethod::Grid | SweepMethod::Random => self.parameters.keys().map(String::as_str).collect(),
        }
    }
}

/// Whether a key of the experiment file is an integer.
pub fn takes_integers(key: &str) -> bool {
    matches!(shape::experiment().at(key.split('.')), Some(Shape::Integer(_)))
}
