//! Activation memory, computed from the shapes of the tensors saved for the backward pass.
//!
//! D hidden, H query heads, K key/value heads, C head dim, E experts, A active experts, F expert width, V vocabulary.

use serde::Serialize;

use super::mesh::on_gpu;
use oss_config::{Experiment, Model, Precision};
use oss_train::model::{logits_chunk_bytes, vocab_size};

/// Size of an f32, and of an index.
const F32_BYTES: u64 = 4;
const INDEX_BYTES: u64 = 8;

/// Memory of the kernels that oneDNN compiles and caches for low-precision matrix products, if it computes them.
/// `crates/oss-torch/src` limits the size of the cache; measured with a full cache.
const KERNEL_BYTES: u64 = 100_000_000;

/// Activation memory of a rank for its part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activations {
    /// Bytes saved by the forward pass for the backward pass.
    pub kept: u64,
    /// Peak of temporary bytes on top of the above, including the compiled kernels.
    pub workspace: u64,
    /// Where the workspace peaks.
    pub peak: Peak,
}

/// Where in a step memory use peaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Peak {
    /// The loss: one chunk of logits, or of their exponentials.
    Loss,
    /// The optimizer step, where low-precision state is converted to f32.
    Update,
    /// The backward pass of one micro-batch through a block, which recomputes its activations with
    /// `train.activation_checkpointing`.
    Block,
}

/// The sizes used below.
struct Sizes {
    d: u64,
    /// H*C.
    queries: u64,
    /// K*C.
    keys: u64,
    heads: u64,
    e: u64,
    a: u64,
    f: u64,
    vocab: u64,
    /// Bytes per element in matrix products.
    bytes: u64,
    gpu: bool,
    /// Whether products are accumulated directly into f32 gradients.
    adds: bool,
    /// Whether the loss is computed in tiles of the vocabulary.
    tiles: bool,
}

/// Activation memory of one of `ranks` ranks; the model's `vocab_size` must be set.
pub fn activations(experiment: &Experiment, ranks: u64) -> Activations {
    let (model, train) = (&experiment.model, &experiment.train);
    let sizes = Sizes::new(model, train.precision, on_gpu(train));
    let layers = model.num_hidden_layers.unsigned_abs();
    let rank_rows = (train.global_batch_size * train.sequence_length).unsigned_abs().div_ceil(ranks);
    let rows = (train.micro_batch_size * train.sequence_length).unsigned_abs().min(rank_rows);
    // The rows between units: the input of each block, and that of the head, which is replaced by its gradient.
    let borders = (layers + 1) * sizes.d * sizes.bytes;
    let inside = if train.activation_checkpointing { sizes.a * INDEX_BYTES } else { sizes.saved_by_block() };
    let again = if train.activation_checkpointing { rows * sizes.saved_by_block() } else { 0 };
    let (loss, block) = (sizes.loss(rows), again + sizes.block_backward(rows));
    let kernels = if sizes.gpu || sizes.adds { 0 } else { KERNEL_BYTES };
    let (workspace, peak) = if loss > block { (loss, Peak::Loss) } else { (block, Peak::Block) };
    Activations { kept: rank_rows * (borders + layers * inside), workspace: workspace + kernels, peak }
}

impl Sizes {
    fn new(model: &Model, precision: Precision, gpu: bool) -> Self {
        let [d, c, heads, kv_heads, e, a, f] = [
            model.hidden_size,
            model.head_dim,
            model.num_attention_heads,
            model.num_key_value_heads,
            model.num_local_experts,
            model.num_experts_per_tok,
            model.intermediate_size,
        ]
        .map(i64::unsigned_abs);
        let vocab = vocab_size(model).unsigned_abs();
        let (queries, keys, bytes) = (heads * c, kv_heads * c, precision_bytes(precision));
        let tiles = !gpu && precision != Precision::F16;
        let adds = precision == Precision::F32 || (tiles && oss_torch::has_bf16_gemm());
        Self { d, queries, keys, heads, e, a, f, vocab, bytes, gpu, adds, tiles }
    }

    fn is_f32(&self) -> bool {
        self.bytes == F32_BYTES
    }

    /// Bytes that a block saves per row in addition to its input.
    fn saved_by_block(&self) -> u64 {
        let Self { d, queries, keys, heads, e, a, f, .. } = *self;
        // The GPU flash kernel keeps its own output and logsumexp in addition to those corrected for the sinks.
        let attended = if self.gpu && !self.is_f32() { 2 } else { 1 };
        let attention = queries + 2 * keys + attended * queries;
        let experts = d + a * 2 * f; // the residual rows; each visited expert
        let wide = attended * heads + 2 + a + e; // logsumexp, two inverse norms, the router's weights and softmax
        let indices = 5 * a; // the selected experts, and the rows sorted by expert
        (attention + experts) * self.bytes + wide * F32_BYTES + indices * INDEX_BYTES
    }

    /// Peak bytes of a block's backward pass over `rows` rows, excluding saved activations.
    fn block_backward(&self, rows: u64) -> u64 {
        let Self { d, queries, a, f, .. } = *self;
        let activation = a * (d + 10 * f); // the output gradient; the backward pass of the clamped SwiGLU
        let products = a * (3 * d + 2 * f); // and later the rows, their gradient and its sum over experts
        let attention = 8 * queries; // keys and values repeated per head, with their gradients
        let on_rows = rows * self.bytes * activation.max(products).max(attention);
        let beside_product = rows * self.bytes * a * (d + 3 * f);
        on_rows.max(beside_product + self.expert_product())
    }

    /// Bytes of the gradient of the experts' gate/up projections, before accumulation into the f32 gradient.
    fn expert_product(&self) -> u64 {
        let Self { d, e, f, bytes, .. } = *self;
        let groupable = bytes == 2 && self.gpu && d % 8 == 0 && f % 8 == 0;
        let experts = if groupable { e } else { 1 };
        experts * self.product(d * 2 * f)
    }

    /// Bytes of a product of `elements` before accumulation into a gradient; on the CPU, low-precision products are
    /// first converted to f32.
    fn product(&self, elements: u64) -> u64 {
        match (self.adds, self.gpu) {
            (true, _) => 0,
            (false, true) => elements * self.bytes,
            (false, false) => elements * (self.bytes + F32_BYTES),
        }
    }

    /// Peak bytes of the loss over `rows` rows.
    fn loss(&self, rows: u64) -> u64 {
        let Self { d, vocab, bytes, .. } = *self;
        let logit_bytes = if self.tiles { bytes } else { F32_BYTES };
        let most =
            (logits_chunk_bytes(self.gpu).unsigned_abs() / (logit_bytes * vocab)).clamp(1, rows.max(1));
        let chunk = rows.div_ceil(rows.div_ceil(most));
        let logits = chunk * vocab;
        if self.tiles {
            // The exponentials of the chunk; the rows and their gradient, both also in f32.
            return logits * bytes + 2 * rows * d * bytes + 2 * chunk * d * F32_BYTES;
        }
        let narrow = if self.is_f32() { 0 } else { bytes };
        let softmax = logits * (2 * F32_BYTES + narrow); // logits in one or two precisions, and their log-probabilities
        let gradient = logits * (F32_BYTES + narrow) + self.product(vocab * d);
        softmax.max(gradient) + 2 * rows * d * bytes
    }
}

/// Bytes per element in matrix products.
pub fn precision_bytes(precision: Precision) -> u64 {
    match precision {
        Precision::F32 => F32_BYTES,
        Precision::Bf16 | Precision::F16 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::Preset;

    /// Width 64, 2 layers, 4 heads of 16 with 2 for keys and values, 4 experts of width 64, 2 of them active.
    fn tiny() -> Experiment {
        let mut experiment = Experiment {
            model: Model { vocab_size: Some(100), ..Preset::Tiny.model() },
            ..Experiment::default()
        };
        let train = &mut experiment.train;
        (train.global_batch_size, train.micro_batch_size, train.sequence_length) = (8, 2, 10);
        train.device = "cpu".into();
        experiment
    }

    #[test]
    fn kept_activations_by_hand() {
        let mut experiment = tiny();
        // Queries, keys, values and attended values; residual rows and two experts'.
        let numbers = 64 + 2 * 32 + 64 + 64 + 2 * (2 * 64);
        let wide = 4 + 2 + 2 + 4;
        let a_row = 4 * (numbers + wide) + 8 * 10;
        assert_eq!(activations(&experiment, 1).kept, 80 * (3 * 64 * 4 + 2 * a_row));
        assert_eq!(activations(&experiment, 4).kept, 20 * (3 * 64 * 4 + 2 * a_row));
        experiment.train.activation_checkpointing = true;
        assert_eq!(activations(&experiment, 1).kept, 80 * (3 * 64 * 4 + 2 * 2 * 8));
    }

    #[test]
    fn the_loss_holds_one_chunk_of_logits() {
        let mut experiment = tiny();
        experiment.model.vocab_size = Some(201_088);
        experiment.train.sequence_length = 256;
        let held = activations(&experiment, 1);
        assert_eq!(held.peak, Peak::Loss);
        // 512 rows in two chunks: exponentials; rows and their gradient, as they are and in f32.
        assert_eq!(held.workspace, 256 * 201_088 * 4 + 2 * 512 * 64 * 4 + 2 * 256 * 64 * 4);
        experiment.train.precision = Precision::Bf16;
        let kernels = if oss_torch::has_bf16_gemm() { 0 } else { KERNEL_BYTES };
        assert_eq!(
            activations(&experiment, 1).workspace,
            512 * 201_088 * 2 + 2 * 512 * 64 * 2 + 2 * 512 * 64 * 4 + kernels
        );
        // On a GPU, logits and log-probabilities.
        experiment.train.device = "cuda".into();
        experiment.train.precision = Precision::F32;
        assert_eq!(activations(&experiment, 1).workspace, 512 * 201_088 * 8 + 2 * 512 * 64 * 4);
    }

    #[test]
    fn accumulation_adds_no_workspace() {
        let mut experiment = tiny();
        let few = activations(&experiment, 1);
        experiment.train.global_batch_size *= 3;
        let many = activations(&experiment, 1);
        assert_eq!((many.kept, many.workspace), (3 * few.kept, few.workspace));
    }
}
