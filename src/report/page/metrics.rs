//! What the numbers of the metrics mean, and where on the page they stand.

/// A number of the metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its place among the charts.
    pub place: usize,
    /// What it is, for people; empty where this program does not know.
    pub meaning: &'static str,
    /// What its values are multiplied by.
    pub factor: f64,
    /// Whether it is noisy.
    pub smooth: bool,
}

const GIB: f64 = 1.0 / (1u64 << 30) as f64;

/// Tag, meaning, factor, whether noisy; in the order of the page.
const KNOWN: [(&str, &str, f64, bool); 18] = [
    (LOSSES[0], "nats a token", 1.0, true),
    (LOSSES[1], "nats a token, on text held out", 1.0, false),
    ("train/lr", "learning rate", 1.0, false),
    ("train/grad_norm", "norm of the gradient, before clipping", 1.0, true),
    ("train/balance_loss", "1 a choice where all experts have the same load", 1.0, true),
    ("train/max_load", "busiest expert of all layers, over the uniform load", 1.0, true),
    ("train/dead_experts", "experts that no token of the batch chose, all layers", 1.0, true),
    ("train/loss_scale", "factor of f16's loss", 1.0, false),
    ("train/tokens_per_second", "tokens a second", 1.0, true),
    ("train/tflops", "10¹² operations a second", 1.0, true),
    ("train/peak_memory_bytes", "most memory held so far, GiB", GIB, false),
    ("validation/perplexity", "exp of the loss", 1.0, false),
    ("validation/nats_per_byte", "nats a byte of text", 1.0, false),
    ("validation/max_load", "busiest expert of all layers, over the uniform load", 1.0, false),
    ("validation/dead_experts", "experts that no token chose, all layers", 1.0, false),
    ("train/skipped", "steps left out because a number was not finite", 1.0, false),
    ("dead_experts_layers", "experts of each layer that no token of the batch chose", 1.0, false),
    ("max_load_layers", "busiest expert of each layer, over the uniform load", 1.0, false),
];

/// The charts that come first.
pub const LOSSES: [&str; 2] = ["train/loss", "validation/loss"];

/// What `tag` is.
pub fn metric(tag: &str) -> Metric {
    match KNOWN.iter().enumerate().find(|(_, known)| known.0 == tag) {
        Some((place, &(_, meaning, factor, smooth))) => Metric { place, meaning, factor, smooth },
        None => Metric { place: KNOWN.len(), meaning: "", factor: 1.0, smooth: true },
    }
}
