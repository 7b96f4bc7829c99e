//! `[optimizer]`, `[schedule]`, `[train]` and `[checkpoint]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Devices that go by a name; `cuda:N` is the N-th GPU.
pub const DEVICES: [&str; 3] = ["auto", "cpu", "cuda"];

/// AdamW (arXiv:1711.05101) or Muon, and the clipping before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Which optimizer.
    pub kind: OptimizerKind,
    /// Peak learning rate, of Muon's steps too: they are as long as AdamW's.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// Decay of Muon's momentum; 0.95 unless set. `betas` and `eps` are those of what AdamW steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: Option<f64>,
    /// Decay of the first and second moments.
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// Decoupled weight decay of matrices; norms, biases and sinks have none.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Global gradient norm above which gradients are scaled down; 0 never clips. 1 unless set with `update = "step"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: Option<f64>,
    /// Numbers in which the moments of the matrices are kept, two or Muon's one; those of norms, biases, sinks and router
    /// are f32.
    pub state: StatePrecision,
    /// When weights are updated.
    pub update: Update,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            lr: 3e-4,
            momentum: None,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: None,
            state: StatePrecision::F32,
            update: Update::Step,
        }
    }
}

impl Optimizer {
    /// Decay of the momentum; none where the optimizer has none.
    pub fn momentum(&self) -> Option<f64> {
        self.kind.expects().momentum.map(|usual| self.momentum.unwrap_or(usual))
    }

    /// The global gradient norm to clip to; none where gradients are not clipped by it.
    pub fn clip_norm(&self) -> Option<f64> {
        let norm = match self.update {
            Update::Step => self.max_grad_norm.unwrap_or(1.0),
            Update::InBackward => 0.0,
        };
        (norm > 0.0).then_some(norm)
    }
}

/// Numbers in which the optimizer's moments are kept between steps; Muon keeps half the bytes of the blocks' matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StatePrecision {
    /// 8 bytes a parameter.
    #[serde(rename = "f32")]
    F32,
    /// 4 bytes a parameter, rounded at random.
    #[serde(rename = "bf16")]
    Bf16,
    /// 2 bytes a parameter: codes of 8 bits, rounded at random, with one scale for each block of 256.
    #[serde(rename = "8bit")]
    EightBit,
}

/// When weights are updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// Once all gradients are there, clipped by their global norm.
    Step,
    /// In the backward pass, each layer as soon as its gradient is complete, so that only one or two layers' gradients
    /// are held. Each tensor's step is shortened where its gradient exceeds what the second moment expects; Muon's have
    /// one length anyway.
    InBackward,
}

/// Optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    Adamw,
    /// Steps along the nearest orthogonal matrix to the momentum, for the matrices of the blocks; AdamW for the embedding,
    /// the head, routers, norms, biases and sinks. It keeps one moment of the matrices instead of two.
    Muon,
}

/// What an optimizer expects of its hyperparameters.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedHyperparameters {
    /// Decay of the momentum unless set; none where there is no momentum.
    pub momentum: Option<f64>,
    /// A peak learning rate above this has never trained a transformer.
    pub highest_lr: f64,
}

impl OptimizerKind {
    /// What it expects of its hyperparameters.
    pub fn expects(self) -> ExpectedHyperparameters {
        match self {
            Self::Adamw => ExpectedHyperparameters { momentum: None, highest_lr: 1e-2 },
            Self::Muon => ExpectedHyperparameters { momentum: Some(0.95), highest_lr: 1e-2 },
        }
    }
}

/// The learning rate over the steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Shape of the curve after the warm-up.
    pub kind: ScheduleKind,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// cosine, linear: the step at which the decay ends (`train.steps` unless set).
    /// wsd: how many last steps decay (a fifth of `train.steps` unless set).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub decay_steps: Option<u64>,
    /// The last learning rate, as a share of the peak.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_lr_ratio: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { kind: ScheduleKind::Cosine, warmup_steps: 100, decay_steps: None, min_lr_ratio: 0.1 }
    }
}

/// Shapes of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from the peak to the least.
    Cosine,
    /// Warm-up, stable, then a linear decay at the end.
    Wsd,
    /// A straight line from the peak to the least.
    Linear,
    /// The peak, always.
    Constant,
}

/// One training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Optimizer steps in all: a target, which may be raised later.
    #[schemars(range(min = 1))]
    pub steps: u64,
    /// Sequences of one optimizer step, over all ranks.
    #[schemars(range(min = 1))]
    pub global_batch_size: i64,
    /// Sequences that one rank passes through the model at once; the rest is accumulated.
    #[schemars(range(min = 1))]
    pub micro_batch_size: i64,
    /// T: predicted tokens of one sequence.
    #[schemars(range(min = 1))]
    pub sequence_length: i64,
    /// Numbers used in the matrix products.
    pub precision: Precision,
    /// Numbers in which the matrices are kept; norms, biases, sinks and router are f32.
    pub weights: StoredWeights,
    /// Keep only each block's input for the backward pass and compute the rest again.
    pub recompute: bool,
    /// Tokens see only their own document.
    pub document_mask: bool,
    /// Weight of the load-balancing loss; 0.1 when training from scratch and 0 after `model.init_from`, unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub balance_loss: Option<f64>,
    /// What a NaN or infinite loss does.
    pub non_finite: NonFinite,
    /// Stop with a checkpoint (exit 75) after so many minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_minutes: Option<f64>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads of a rank; every core unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub threads: Option<usize>,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            steps: 1000,
            global_batch_size: 32,
            micro_batch_size: 1,
            sequence_length: 512,
            precision: Precision::F32,
            weights: StoredWeights::F32,
            recompute: false,
            document_mask: false,
            balance_loss: None,
            non_finite: NonFinite::Stop,
            max_minutes: None,
            device: "auto".into(),
            threads: None,
        }
    }
}

impl Train {
    /// Weight of the load-balancing loss; where unset, it is on when training `from_scratch`.
    pub fn balance_loss(&self, from_scratch: bool) -> f64 {
        self.balance_loss.unwrap_or(if from_scratch { 0.1 } else { 0.0 })
    }
}

/// Numbers used in the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// bfloat16 products.
    Bf16,
    /// Half-precision products with dynamic loss scaling.
    F16,
}

/// Numbers in which weights are kept between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoredWeights {
    /// 32-bit floats; narrower products take a copy.
    F32,
    /// bfloat16 and nothing else, rounded at random after each step, so that small steps count on average.
    Bf16,
}

/// What a NaN or infinite loss does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonFinite {
    /// The run stops, naming the step, the batch and the last good checkpoint.
    Stop,
    /// The step leaves the weights alone, and is counted.
    Skip,
}

/// When checkpoints are written and which are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Steps between checkpoints; the last step always has one.
    #[schemars(range(min = 1))]
    pub every_steps: u64,
    /// How many of the newest are kept.
    #[schemars(range(min = 1))]
    pub keep_last: u64,
    /// Steps whose multiples are kept for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_every: Option<u64>,
    /// Keep the checkpoint with the lowest validation loss.
    pub keep_best: bool,
    /// Train on while a checkpoint is written, at the cost of a copy of the state in host memory.
    pub background: bool,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every_steps: 500, keep_last: 2, keep_every: None, keep_best: false, background: false }
    }
}
