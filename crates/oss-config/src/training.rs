//! `[optimizer]`, `[schedule]`, `[train]` and `[checkpoint]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Devices available by name; `cuda:N` is the Nth GPU.
pub const DEVICES: [&str; 3] = ["auto", "cpu", "cuda"];

/// AdamW (arXiv:1711.05101) or Muon, and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Optimizer to use.
    pub kind: OptimizerKind,
    /// Peak learning rate. Muon's updates are scaled to the size of AdamW's, so the same values apply to both.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// Momentum of Muon; defaults to 0.95. `betas` and `eps` apply to the parameters that AdamW updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: Option<f64>,
    /// Decay rates of the first and second moments.
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// Decoupled weight decay of the matrices; norms, biases and sinks are not decayed.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Maximum global gradient norm, above which gradients are scaled down; 0 disables clipping. With `update = "step"`
    /// it defaults to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: Option<f64>,
    /// Storage dtype of the optimizer state of the matrices (AdamW's two moments, Muon's one); for norms, biases, sinks
    /// and routers it is f32.
    pub state_dtype: StateDtype,
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
            state_dtype: StateDtype::F32,
            update: Update::Step,
        }
    }
}

impl Optimizer {
    /// The momentum, or `None` if the optimizer has none.
    pub fn momentum(&self) -> Option<f64> {
        self.kind.expects().momentum.map(|usual| self.momentum.unwrap_or(usual))
    }

    /// The global gradient norm to clip to, or `None` if gradients are not clipped by it.
    pub fn clip_norm(&self) -> Option<f64> {
        let norm = match self.update {
            Update::Step => self.max_grad_norm.unwrap_or(1.0),
            Update::InBackward => 0.0,
        };
        (norm > 0.0).then_some(norm)
    }
}

/// Storage dtype of the optimizer state between steps. Muon needs half as many bytes for the matrices of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StateDtype {
    /// 8 bytes per parameter.
    #[serde(rename = "f32")]
    F32,
    /// 4 bytes per parameter, stochastically rounded.
    #[serde(rename = "bf16")]
    Bf16,
    /// 2 bytes per parameter: 8-bit codes, stochastically rounded, with one scale per block of 256.
    #[serde(rename = "8bit")]
    EightBit,
}

/// When weights are updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// After the backward pass, with gradients clipped by their global norm.
    Step,
    /// During the backward pass: each layer as soon as its gradient is complete, so that only one or two layers'
    /// gradients are in memory. An AdamW update is scaled down in each tensor whose gradient exceeds what the second
    /// moment predicts; Muon's updates have a fixed size anyway.
    InBackward,
}

/// Available optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    Adamw,
    /// Updates the matrices of the blocks by their orthogonalized momentum; AdamW updates the embedding, the output
    /// head, routers, norms, biases and sinks. It stores one moment per matrix instead of two.
    Muon,
}

/// Plausible hyperparameters of an optimizer.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedHyperparameters {
    /// Default momentum, or `None` if the optimizer has none.
    pub momentum: Option<f64>,
    /// A peak learning rate above this is almost certainly a mistake.
    pub highest_lr: f64,
}

impl OptimizerKind {
    /// Its plausible hyperparameters.
    pub fn expects(self) -> ExpectedHyperparameters {
        match self {
            Self::Adamw => ExpectedHyperparameters { momentum: None, highest_lr: 1e-2 },
            Self::Muon => ExpectedHyperparameters { momentum: Some(0.95), highest_lr: 1e-2 },
        }
    }
}

/// The learning rate schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Shape of the schedule after warmup.
    pub kind: ScheduleKind,
    /// Number of linear warmup steps, starting from 0.
    pub warmup_steps: u64,
    /// cosine and linear: step at which the decay ends (defaults to `train.steps`).
    /// wsd: length of the final decay in steps (defaults to a fifth of `train.steps`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub decay_steps: Option<u64>,
    /// Final learning rate as a fraction of the peak.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_lr_ratio: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { kind: ScheduleKind::Cosine, warmup_steps: 100, decay_steps: None, min_lr_ratio: 0.1 }
    }
}

/// Learning rate schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Cosine decay from the peak to the minimum.
    Cosine,
    /// Warmup, stable, then linear decay at the end.
    Wsd,
    /// Linear decay from the peak to the minimum.
    Linear,
    /// The peak throughout, after warmup.
    Constant,
}

/// The training loop: steps, batches, precision and device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Total number of optimizer steps. It can be raised later to continue a finished run.
    #[schemars(range(min = 1))]
    pub steps: u64,
    /// In place of `steps`: number of passes over the training text. A resolved experiment has the number of steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epochs: Option<f64>,
    /// Sequences per optimizer step, across all ranks.
    #[schemars(range(min = 1))]
    pub global_batch_size: i64,
    /// Sequences per forward and backward pass on each rank; gradients are accumulated over the rest of the batch.
    #[schemars(range(min = 1))]
    pub micro_batch_size: i64,
    /// T: tokens predicted per sequence.
    #[schemars(range(min = 1))]
    pub sequence_length: i64,
    /// Dtype of the matrix products.
    pub precision: Precision,
    /// Storage dtype of the matrices; norms, biases, sinks and routers are f32.
    pub param_dtype: ParamDtype,
    /// Activation checkpointing: keep only the input of each block, and recompute the rest in the backward pass.
    pub activation_checkpointing: bool,
    /// Restrict attention to tokens of the same document.
    pub document_mask: bool,
    /// Coefficient of the router's load-balancing loss; defaults to 0.1 when training from scratch, and to 0 with
    /// `model.init_from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub router_aux_loss_coef: Option<f64>,
    /// What to do when the loss is NaN or infinite.
    pub non_finite: NonFinite,
    /// Consecutive skipped steps after which the run fails: the weights no longer change. Above 16, the number of
    /// halvings that the loss scale of `precision = "f16"` may need.
    #[schemars(range(min = 1))]
    pub max_skipped_steps: u64,
    /// Stop after this many minutes, with a checkpoint and exit status 75.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_minutes: Option<f64>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads per rank; defaults to all cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub threads: Option<usize>,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            steps: 1000,
            epochs: None,
            global_batch_size: 32,
            micro_batch_size: 1,
            sequence_length: 512,
            precision: Precision::F32,
            param_dtype: ParamDtype::F32,
            activation_checkpointing: false,
            document_mask: false,
            router_aux_loss_coef: None,
            non_finite: NonFinite::Stop,
            max_skipped_steps: 32,
            max_minutes: None,
            device: "auto".into(),
            threads: None,
        }
    }
}

impl Train {
    /// Skips every step whose loss is not finite, as simulations do: their losses mean nothing.
    pub fn tolerate_non_finite(&mut self) {
        self.non_finite = NonFinite::Skip;
        self.max_skipped_steps = u64::MAX;
    }

    /// Coefficient of the load-balancing loss; if unset, it is on when training `from_scratch`.
    pub fn router_aux_loss_coef(&self, from_scratch: bool) -> f64 {
        self.router_aux_loss_coef.unwrap_or(if from_scratch { 0.1 } else { 0.0 })
    }
}

/// Dtypes of the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// bfloat16 matrix products.
    Bf16,
    /// float16 matrix products with dynamic loss scaling.
    F16,
}

/// Storage dtypes of weights between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParamDtype {
    /// 32-bit floats, copied to a narrower dtype for products in that dtype.
    F32,
    /// bfloat16 without an f32 master copy; stochastically rounded after each step, so that small updates are not lost.
    Bf16,
}

/// What to do when the loss is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NonFinite {
    /// Stop the run and report the step, the batch and the last good checkpoint.
    Stop,
    /// Skip the update and count the skipped step.
    Skip,
}

/// When checkpoints are written, and which ones are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Steps between checkpoints; the last step always has one.
    #[schemars(range(min = 1))]
    pub every_steps: u64,
    /// Number of most recent checkpoints to keep.
    #[schemars(range(min = 1))]
    pub keep_last: u64,
    /// Keep checkpoints at multiples of this step permanently.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_every: Option<u64>,
    /// Also keep the checkpoint with the lowest validation loss.
    pub keep_best: bool,
    /// Continue training while a checkpoint is written, at the cost of a copy of the state in host memory.
    pub background: bool,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every_steps: 500, keep_last: 2, keep_every: None, keep_best: false, background: false }
    }
}
