//! Estimated costs: parameters, FLOPs and tokens, computed from shapes alone without allocating tensors.
//!
//! D hidden, H query heads, C head dim, E experts, A active experts, T sequence length.

use serde::Serialize;

use oss_config::{Experiment, LayerType, Model};
use oss_train::model::{BlockParameter, Parameter, parameters};

/// The estimate for an experiment whose vocabulary size is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Parameters by kind.
    pub parameters: Parameters,
    /// FLOPs of the forward and backward pass per token, excluding recomputation.
    pub flops_per_token: f64,
    /// Total FLOPs of training.
    pub flops: f64,
    /// Predicted tokens per optimizer step.
    pub tokens_per_step: u64,
    /// Total predicted tokens of training.
    pub tokens: u64,
}

/// Parameter counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// Total.
    pub total: i64,
    /// Parameters used in a token's matrix products: all except the embedding and the inactive experts.
    pub active: i64,
    /// The input embedding.
    pub embedding: i64,
    /// Attention projections, biases and sinks.
    pub attention: i64,
    /// Experts, including biases.
    pub experts: i64,
    /// Routers.
    pub router: i64,
    /// Norms.
    pub norm: i64,
    /// The output (unembedding) matrix.
    pub head: i64,
}

/// The costs of `experiment`; the model's `vocab_size` must be set.
pub fn estimate(experiment: &Experiment) -> Estimate {
    let parameters = count(&experiment.model);
    let train = &experiment.train;
    let flops_per_token =
        6.0 * parameters.active as f64 + attention_flops_per_token(&experiment.model, train.sequence_length);
    let tokens_per_step = (train.global_batch_size * train.sequence_length).unsigned_abs();
    let tokens = tokens_per_step.saturating_mul(train.steps);
    Estimate { parameters, flops_per_token, flops: flops_per_token * tokens as f64, tokens_per_step, tokens }
}

fn count(model: &Model) -> Parameters {
    let mut counted = Parameters {
        total: 0,
        active: 0,
        embedding: 0,
        attention: 0,
        experts: 0,
        router: 0,
        norm: 0,
        head: 0,
    };
    for spec in parameters(model) {
        let numel = spec.numel();
        *kind(&mut counted, spec.parameter) += numel;
        counted.total += numel;
    }
    let visited = counted.experts / model.num_local_experts * model.num_experts_per_tok;
    counted.active = counted.total - counted.embedding - counted.experts + visited;
    counted
}

fn kind(counted: &mut Parameters, parameter: Parameter) -> &mut i64 {
    use BlockParameter::*;
    let parameter = match parameter {
        Parameter::Embedding => return &mut counted.embedding,
        Parameter::LmHead => return &mut counted.head,
        Parameter::FinalNorm => return &mut counted.norm,
        Parameter::Block { parameter, .. } => parameter,
    };
    match parameter {
        QWeight | KWeight | VWeight | OWeight | QBias | KBias | VBias | OBias | Sinks => {
            &mut counted.attention
        }
        GateUpWeight | GateUpBias | DownWeight | DownBias => &mut counted.experts,
        RouterWeight | RouterBias => &mut counted.router,
        AttentionNorm | MlpNorm => &mut counted.norm,
    }
}

/// Attention scores and weighted values: two products of H*C by the visible keys, each once forward and twice backward.
fn attention_flops_per_token(model: &Model, sequence_length: i64) -> f64 {
    let heads = (model.num_attention_heads * model.head_dim) as f64; // H*C
    (0..model.num_hidden_layers)
        .map(|layer| 12.0 * heads * mean_keys_seen(model, model.layer_type(layer), sequence_length))
        .sum()
}

/// Keys visible to a query, averaged over the T positions of a sequence.
fn mean_keys_seen(model: &Model, layer_type: LayerType, sequence_length: i64) -> f64 {
    let window = match layer_type {
        LayerType::FullAttention => sequence_length,
        LayerType::SlidingAttention => model.sliding_window.min(sequence_length),
    } as f64;
    // Position t sees min(t + 1, window) keys: a ramp up to the window, then the window.
    window - window * (window - 1.0) / (2.0 * sequence_length as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::Preset;

    fn experiment(preset: Preset) -> Experiment {
        let model = Model { vocab_size: Some(201_088), ..preset.model() };
        Experiment { model, ..Experiment::default() }
    }

    #[test]
    fn the_20b_model_has_its_published_figures() {
        let mut experiment = experiment(Preset::B20);
        experiment.train.sequence_length = 4096;
        let estimate = estimate(&experiment);
        assert_eq!(estimate.parameters.total, 20_914_757_184);
        assert_eq!(estimate.parameters.active / 1_000_000, 3608);
        assert!((estimate.flops_per_token / 1e9 - 22.9).abs() < 0.05, "{}", estimate.flops_per_token);
    }

    #[test]
    fn the_kinds_add_up() {
        for preset in [Preset::B120, Preset::M110, Preset::Tiny] {
            let p = estimate(&experiment(preset)).parameters;
            assert_eq!(p.total, p.embedding + p.attention + p.experts + p.router + p.norm + p.head);
            assert!(p.active < p.total);
        }
    }

    #[test]
    fn the_110m_shape_has_110_million_parameters() {
        assert_eq!(estimate(&experiment(Preset::M110)).parameters.total / 1_000_000, 110);
    }

    #[test]
    fn keys_seen_by_hand() {
        let model = Model { sliding_window: 2, ..Model::default() };
        // 1, 2, 2, 2 and 1, 2, 3, 4 keys.
        assert_eq!(mean_keys_seen(&model, LayerType::SlidingAttention, 4), 7.0 / 4.0);
        assert_eq!(mean_keys_seen(&model, LayerType::FullAttention, 4), 10.0 / 4.0);
        assert_eq!(mean_keys_seen(&model, LayerType::SlidingAttention, 1), 1.0);
    }

    #[test]
    fn tokens_follow_the_batch() {
        let mut experiment = experiment(Preset::Tiny);
        experiment.train.steps = 10;
        experiment.train.global_batch_size = 4;
        experiment.train.sequence_length = 16;
        let estimate = estimate(&experiment);
        assert_eq!((estimate.tokens_per_step, estimate.tokens), (64, 640));
        assert_eq!(estimate.flops, estimate.flops_per_token * 640.0);
    }
}
