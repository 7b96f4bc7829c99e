//! Descriptions of the metrics, and their order on the page.

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its position among the charts.
    pub place: usize,
    /// Its description; empty if unknown.
    pub meaning: &'static str,
    /// Factor applied to its values.
    pub factor: f64,
    /// Whether it is noisy.
    pub smooth: bool,
}

const GIB: f64 = 1.0 / (1u64 << 30) as f64;

/// Tag, description, factor, whether noisy; in page order.
const KNOWN: [(&str, &str, f64, bool); 16] = [
    (LOSS, "nats per token", 1.0, true),
    ("train/lr", "learning rate", 1.0, false),
    ("train/grad_norm", "gradient norm before clipping", 1.0, true),
    ("train/balance_loss", "1 per selected expert if the load is uniform", 1.0, true),
    ("train/max_load", "maximum expert load over all layers, relative to uniform", 1.0, true),
    ("train/dead_experts", "experts without a token in the batch, all layers", 1.0, true),
    ("train/loss_scale", "f16 loss scale", 1.0, false),
    ("train/tokens_per_second", "tokens per second", 1.0, true),
    ("train/tflops", "TFLOP/s", 1.0, true),
    ("train/peak_memory_bytes", "peak memory so far, GiB", GIB, false),
    ("validation/perplexity", "exp of the loss", 1.0, false),
    ("validation/nats_per_byte", "nats per byte of text", 1.0, false),
    ("validation/max_load", "maximum expert load over all layers, relative to uniform", 1.0, false),
    ("validation/dead_experts", "experts without a token, all layers", 1.0, false),
    ("dead_experts_layers", "experts per layer without a token in the batch", 1.0, false),
    ("max_load_layers", "maximum expert load per layer, relative to uniform", 1.0, false),
];

/// The chart that comes first, of both losses.
pub const LOSS: &str = "loss";

/// The training and the validation loss.
pub const LOSSES: [&str; 2] = ["train/loss", "validation/loss"];

/// The metric with this tag.
pub fn metric(tag: &str) -> Metric {
    match KNOWN.iter().enumerate().find(|(_, known)| known.0 == tag) {
        Some((place, &(_, meaning, factor, smooth))) => Metric { place, meaning, factor, smooth },
        None => Metric { place: KNOWN.len(), meaning: "", factor: 1.0, smooth: true },
    }
}
