//! `[sweep]`: one file, many trials. A file with this section is not one experiment but what many are made from.

mod read;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shape::{self, Shape};
pub(super) use read::{Swept, read};

/// The values of one trial, by key of the experiment file.
pub type Values = BTreeMap<String, Value>;

/// Many runs of one experiment that differ in a few values; the other sections of the file are laid over `base`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    /// Experiment file that every trial starts from, relative to this one; beneath this file's own sections, as
    /// `extends` would put it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// How trials are chosen.
    pub method: SweepMethod,
    /// What is varied: for each key of the experiment file (`"optimizer.lr"`) a list of values, or, with
    /// `method = "random"`, a range.
    pub parameters: BTreeMap<String, Candidates>,
    /// list: the values of each trial, by key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Values>,
    /// random: trials in all; raised later, only the new ones run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub num_trials: Option<u64>,
    /// random: seed of the draws, not of the trials (`run.seed` is).
    pub seed: u64,
    /// Combinations that are left out: those that match every key of a table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<BTreeMap<String, Condition>>,
    /// What trials are compared by.
    pub metric: SweepMetric,
    /// Which way is better; what the metric suggests unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The last stage of each trial that trains to its end.
    pub until: LastStage,
    /// Trials at once; the cores, or the GPUs, are shared out among them.
    #[schemars(range(min = 1))]
    pub parallel: Option<u64>,
    /// What a trial that fails does to the others.
    pub on_failure: OnFailure,
    /// End unpromising trials early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halving: Option<Halving>,
}

/// Ways of choosing trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepMethod {
    /// Every combination of the values in `parameters`.
    #[default]
    Grid,
    /// `num_trials` draws from `parameters`.
    Random,
    /// The trials that are listed in `trials`.
    List,
}

/// What a parameter is chosen from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Candidates {
    /// One of these values.
    Choice(Vec<Value>),
    /// A number between two others.
    Range(Range),
}

/// Numbers to draw from: whole numbers for keys that take those. Others are rounded to four digits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Draw the logarithm evenly, as for learning rates.
    #[serde(default)]
    pub log: bool,
    /// Only `min` and multiples of this above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: Option<f64>,
}

/// When a value matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Condition {
    /// A number that is neither less nor more than this.
    Between(Between),
    /// One of these values.
    OneOf(Vec<Value>),
    /// This value.
    Is(Value),
}

/// Bounds, both included; one may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// At least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// At most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Numbers of `metrics.jsonl` that trials can be compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SweepMetric {
    /// Validation loss, nats a token.
    #[default]
    ValLoss,
    /// Validation loss, nats a byte: comparable between tokenizers.
    ValNatsPerByte,
    /// Training loss of the newest logged step, which is noisy.
    Loss,
    /// Speed of the newest logged step.
    TokensPerSecond,
    /// Most memory held.
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

    /// Whether it comes from evaluations.
    pub fn is_validation(self) -> bool {
        matches!(self, Self::ValLoss | Self::ValNatsPerByte)
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The least is best.
    Minimize,
    /// The greatest is best.
    Maximize,
}

/// Last stages of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LastStage {
    /// Only weights.
    Train,
    /// The loss on all of the validation text, too.
    #[default]
    Evaluate,
    /// Samples, too.
    Sample,
    /// Every stage.
    Export,
}

/// What a failure does to the trials that are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They run; the failure is shown in the results.
    #[default]
    Continue,
    /// The sweep stops.
    Stop,
}

/// Successive halving: all trials train to the first rung, the best of them to the next, and so on (arXiv:1502.07943).
/// The learning rate's schedule is that of the whole run at every rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Halving {
    /// Steps of the first rung; each next one has `reduction` times as many.
    #[schemars(range(min = 1))]
    pub min_steps: u64,
    /// Of so many trials at a rung one goes on.
    #[serde(default = "three")]
    #[schemars(range(min = 2))]
    pub reduction: u64,
    /// Promote a trial as soon as it is among the best of those that have reached its rung (ASHA, arXiv:1810.05934),
    /// instead of waiting for all of them; so by default where trials run in parallel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<bool>,
}

fn three() -> u64 {
    3
}

impl Sweep {
    /// Whether less of the metric is better.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or(match self.metric {
            SweepMetric::TokensPerSecond => Direction::Maximize,
            _ => Direction::Minimize,
        })
    }

    /// Trials at once.
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

/// Whether a key of the experiment file takes whole numbers.
pub fn takes_integers(key: &str) -> bool {
    matches!(shape::experiment().at(key.split('.')), Some(Shape::Integer(_)))
}
