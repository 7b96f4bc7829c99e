//! Every parameter of the architecture: name, shape, initialization and role, unit by unit.
//!
//! D hidden, H query heads, K key/value heads, C head dim, E experts, F expert width, V vocabulary.

use strum::{EnumString, IntoStaticStr, VariantArray};

use BlockParameter::*;

use oss_config::Model;

/// How a parameter is initialized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Normal with mean 0 and the model's `initializer_range`.
    Normal,
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
}

/// How the optimizer and the matrix products treat a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The embedding or the head, one row per token of the vocabulary: like a matrix, except to Muon.
    Vocabulary,
    /// Has weight decay; cast to the training precision for the matrix products.
    Matrix,
    /// The router's matrix: has weight decay, but stays f32.
    Router,
    /// Norms, biases and sinks: no weight decay, f32.
    Vector,
}

impl Role {
    /// Whether it has weight decay and is cast to the training precision.
    pub fn is_matrix(self) -> bool {
        matches!(self, Self::Vocabulary | Self::Matrix)
    }
}

/// A parameter of the architecture; determines its position in the chain, name, shape, initialization and role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parameter {
    /// The input embedding, `[V, D]`.
    Embedding,
    /// A parameter of a block.
    Block {
        /// Layer index.
        layer: usize,
        /// Which of the block's parameters.
        parameter: BlockParameter,
    },
    /// The output matrix, `[V, D]`.
    LmHead,
    /// The norm before the output matrix, `[D]`.
    FinalNorm,
}

/// A parameter of a block, with its Hugging Face name within the layer.
///
/// The order is that of a unit's tensors, sorted by role. Checkpoints and the flat buffers used in training follow it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumString, IntoStaticStr, VariantArray,
)]
pub enum BlockParameter {
    /// `[H*C, D]`.
    #[strum(serialize = "self_attn.q_proj.weight")]
    QWeight,
    /// `[K*C, D]`.
    #[strum(serialize = "self_attn.k_proj.weight")]
    KWeight,
    /// `[K*C, D]`.
    #[strum(serialize = "self_attn.v_proj.weight")]
    VWeight,
    /// `[D, H*C]`.
    #[strum(serialize = "self_attn.o_proj.weight")]
    OWeight,
    /// `[E, D, 2F]`, gate and up interleaved in the last axis.
    #[strum(serialize = "mlp.experts.gate_up_proj")]
    GateUpWeight,
    /// `[E, F, D]`.
    #[strum(serialize = "mlp.experts.down_proj")]
    DownWeight,
    /// `[E, D]`.
    #[strum(serialize = "mlp.router.weight")]
    RouterWeight,
    /// The norm before attention, `[D]`.
    #[strum(serialize = "input_layernorm.weight")]
    AttentionNorm,
    /// `[H*C]`.
    #[strum(serialize = "self_attn.q_proj.bias")]
    QBias,
    /// `[K*C]`.
    #[strum(serialize = "self_attn.k_proj.bias")]
    KBias,
    /// `[K*C]`.
    #[strum(serialize = "self_attn.v_proj.bias")]
    VBias,
    /// The attention sinks' logits, `[H]`.
    #[strum(serialize = "self_attn.sinks")]
    Sinks,
    /// `[D]`.
    #[strum(serialize = "self_attn.o_proj.bias")]
    OBias,
    /// The norm before the router and the experts, `[D]`.
    #[strum(serialize = "post_attention_layernorm.weight")]
    MlpNorm,
    /// `[E]`.
    #[strum(serialize = "mlp.router.bias")]
    RouterBias,
    /// `[E, 2F]`.
    #[strum(serialize = "mlp.experts.gate_up_proj_bias")]
    GateUpBias,
    /// `[E, D]`.
    #[strum(serialize = "mlp.experts.down_proj_bias")]
    DownBias,
}

/// The unit that holds the embedding.
pub const EMBEDDING_UNIT: usize = 0;

/// The unit of block `layer`.
pub fn block_unit(layer: usize) -> usize {
    EMBEDDING_UNIT + 1 + layer
}

/// The unit that holds the output matrix and its norm.
pub fn head_unit(model: &Model) -> usize {
    block_unit(model.num_hidden_layers as usize)
}

/// Number of units in the chain: embedding, blocks, head.
pub fn num_units(model: &Model) -> usize {
    head_unit(model) + 1
}

impl Parameter {
    /// Its Hugging Face name, which checkpoints and random initialization use as well.
    pub fn name(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".to_owned(),
            Self::Block { layer, parameter } => format!("model.layers.{layer}.{}", parameter.name()),
            Self::LmHead => "lm_head.weight".to_owned(),
            Self::FinalNorm => "model.norm.weight".to_owned(),
        }
    }

    /// The parameter with that Hugging Face name, in a model of any depth.
    pub fn from_name(name: &str) -> Option<Self> {
        let in_block = || {
            let (layer, parameter) = name.strip_prefix("model.layers.")?.split_once('.')?;
            Some(Self::Block { layer: layer.parse().ok()?, parameter: parameter.parse().ok()? })
        };
        let mut found = [Self::Embedding, Self::LmHead, Self::FinalNorm].into_iter().chain(in_block());
        // `parse` also accepts other spellings of a layer index, such as "+1" and "01".
        found.find(|parameter| parameter.name() == name)
    }

    /// Its shape in `model`, whose vocabulary size must be set.
    pub fn shape(self, model: &Model) -> Vec<i64> {
        match self {
            Self::Embedding | Self::LmHead => vec![vocab_size(model), model.hidden_size],
            Self::Block { parameter, .. } => parameter.shape(model),
            Self::FinalNorm => vec![model.hidden_size],
        }
    }

    /// How it is initialized.
    pub fn init(self) -> Init {
        match self {
            Self::Embedding | Self::LmHead => Init::Normal,
            Self::Block { parameter, .. } => parameter.init(),
            Self::FinalNorm => Init::Ones,
        }
    }

    /// Its role.
    pub fn role(self) -> Role {
        match self {
            Self::Embedding | Self::LmHead => Role::Vocabulary,
            Self::Block { parameter, .. } => parameter.role(),
            Self::FinalNorm => Role::Vector,
        }
    }

    /// The unit of `model` that it belongs to.
    pub fn unit(self, model: &Model) -> usize {
        match self {
            Self::Embedding => EMBEDDING_UNIT,
            Self::Block { layer, .. } => block_unit(layer),
            Self::LmHead | Self::FinalNorm => head_unit(model),
        }
    }

    /// Its index among the parameters of its unit.
    pub fn index(self) -> usize {
        match self {
            Self::Embedding | Self::LmHead => 0,
            Self::Block { parameter, .. } => parameter.index(),
            Self::FinalNorm => 1,
        }
    }

    /// Whether `model` has it, i.e. its layer index is in range.
    pub fn is_in(self, model: &Model) -> bool {
        match self {
            Self::Block { layer, .. } => layer < model.num_hidden_layers as usize,
            Self::Embedding | Self::LmHead | Self::FinalNorm => true,
        }
    }

    /// Whether it holds one matrix per expert, `[E, in, out]`.
    pub fn is_expert_matrix(self) -> bool {
        matches!(self, Self::Block { parameter: GateUpWeight | DownWeight, .. })
    }
}

impl BlockParameter {
    /// Its Hugging Face name within the layer.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Its index among the parameters of a block.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its shape in `model`.
    pub fn shape(self, model: &Model) -> Vec<i64> {
        let Model { hidden_size: d, head_dim: c, num_local_experts: e, intermediate_size: f, .. } = *model;
        let heads = model.num_attention_heads;
        let (q, kv) = (heads * c, model.num_key_value_heads * c);
        match self {
            QWeight => vec![q, d],
            KWeight | VWeight => vec![kv, d],
            OWeight => vec![d, q],
            GateUpWeight => vec![e, d, 2 * f],
            DownWeight => vec![e, f, d],
            RouterWeight => vec![e, d],
            QBias => vec![q],
            KBias | VBias => vec![kv],
            Sinks => vec![heads],
            AttentionNorm | MlpNorm | OBias => vec![d],
            RouterBias => vec![e],
            GateUpBias => vec![e, 2 * f],
            DownBias => vec![e, d],
        }
    }

    /// How it is initialized.
    pub fn init(self) -> Init {
        match self {
            QWeight | KWeight | VWeight | OWeight | GateUpWeight | DownWeight => Init::Normal,
            RouterWeight | RouterBias | Sinks => Init::Normal,
            AttentionNorm | MlpNorm => Init::Ones,
            QBias | KBias | VBias | OBias | GateUpBias | DownBias => Init::Zeros,
        }
    }

    /// Its role.
    pub fn role(self) -> Role {
        match self {
            QWeight | KWeight | VWeight | OWeight | GateUpWeight | DownWeight => Role::Matrix,
            RouterWeight => Role::Router,
            AttentionNorm | MlpNorm | Sinks => Role::Vector,
            QBias | KBias | VBias | OBias | RouterBias | GateUpBias | DownBias => Role::Vector,
        }
    }
}

/// A parameter of a particular model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Which parameter it is.
    pub parameter: Parameter,
    /// Its Hugging Face name.
    pub name: String,
    /// Its shape; experts' matrices are `[E, in, out]`.
    pub shape: Vec<i64>,
}

impl ParameterSpec {
    /// `parameter` in `model`, whose vocabulary size must be set.
    pub fn new(parameter: Parameter, model: &Model) -> Self {
        Self { parameter, name: parameter.name(), shape: parameter.shape(model) }
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.parameter.role()
    }

    /// Number of elements.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// The vocabulary size, which the runner sets from the tokenizer.
///
/// # Panics
/// If it has not been set, which is a bug in the caller.
pub fn vocab_size(model: &Model) -> i64 {
    model.vocab_size.unwrap_or_else(|| unreachable!("model.vocab_size is resolved before the model is used"))
}

/// Parameters of unit `index`, sorted by role.
pub fn unit_parameters(model: &Model, index: usize) -> Vec<ParameterSpec> {
    let parameters = if index == EMBEDDING_UNIT {
        vec![Parameter::Embedding]
    } else if index == head_unit(model) {
        vec![Parameter::LmHead, Parameter::FinalNorm]
    } else {
        let layer = index - block_unit(0);
        BlockParameter::VARIANTS.iter().map(|&parameter| Parameter::Block { layer, parameter }).collect()
    };
    parameters.into_iter().map(|parameter| ParameterSpec::new(parameter, model)).collect()
}

/// Every parameter, in the order of the chain.
pub fn parameters(model: &Model) -> Vec<ParameterSpec> {
    (0..num_units(model)).flat_map(|unit| unit_parameters(model, unit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::Preset;

    fn count(preset: Preset) -> (usize, i64) {
        let model = Model { vocab_size: Some(201_088), ..preset.model() };
        let all = parameters(&model);
        (all.len(), all.iter().map(ParameterSpec::numel).sum())
    }

    #[test]
    fn released_models_have_their_published_sizes() {
        assert_eq!(count(Preset::B20), (411, 20_914_757_184));
        assert_eq!(count(Preset::B120).1 / 100_000_000, 1168);
    }

    #[test]
    fn parameters_of_a_unit_are_sorted_by_role() {
        let model = Model { vocab_size: Some(64), ..Preset::Tiny.model() };
        for unit in 0..num_units(&model) {
            let roles: Vec<Role> = unit_parameters(&model, unit).iter().map(ParameterSpec::role).collect();
            assert!(roles.is_sorted(), "unit {unit}: {roles:?}");
        }
    }

    #[test]
    fn unit_and_index_match_the_order_of_parameters() {
        let model = Model { vocab_size: Some(64), ..Preset::Tiny.model() };
        for unit in 0..num_units(&model) {
            for (index, spec) in unit_parameters(&model, unit).iter().enumerate() {
                assert_eq!(
                    (spec.parameter.unit(&model), spec.parameter.index()),
                    (unit, index),
                    "{}",
                    spec.name
                );
                assert!(spec.parameter.is_in(&model));
            }
        }
        let layer = model.num_hidden_layers as usize;
        assert!(!Parameter::Block { layer, parameter: Sinks }.is_in(&model));
    }

    #[test]
    fn names_round_trip() {
        let model = Model { vocab_size: Some(64), num_hidden_layers: 12, ..Preset::Tiny.model() };
        let all = parameters(&model);
        for spec in &all {
            assert_eq!(Parameter::from_name(&spec.name), Some(spec.parameter));
        }
        let names: std::collections::HashSet<&str> = all.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names.len(), 1 + 12 * 17 + 2);
        for name in [
            "",
            "lm_head",
            "lm_head.weight.",
            "model.layers.0",
            "model.layers..self_attn.sinks",
            "model.layers.-1.self_attn.sinks",
            "model.layers.+1.self_attn.sinks",
            "model.layers.01.self_attn.sinks",
            "model.layers.1.self_attn.sinks.weight",
            "optimizer.exp_avg/lm_head.weight",
        ] {
            assert_eq!(Parameter::from_name(name), None, "{name}");
        }
    }

    /// Initial weights and checkpoints depend on names, order, shapes and initialization, so these must never change.
    #[test]
    fn the_parameters_of_a_block() {
        use {Init::*, Role::*};
        // D 64, H*C 64, K*C 32, H 4, E 4, F 64.
        let model = Model { vocab_size: Some(64), ..Preset::Tiny.model() };
        let expected: [(&str, &[i64], Init, Role); 17] = [
            ("self_attn.q_proj.weight", &[64, 64], Normal, Matrix),
            ("self_attn.k_proj.weight", &[32, 64], Normal, Matrix),
            ("self_attn.v_proj.weight", &[32, 64], Normal, Matrix),
            ("self_attn.o_proj.weight", &[64, 64], Normal, Matrix),
            ("mlp.experts.gate_up_proj", &[4, 64, 128], Normal, Matrix),
            ("mlp.experts.down_proj", &[4, 64, 64], Normal, Matrix),
            ("mlp.router.weight", &[4, 64], Normal, Router),
            ("input_layernorm.weight", &[64], Ones, Vector),
            ("self_attn.q_proj.bias", &[64], Zeros, Vector),
            ("self_attn.k_proj.bias", &[32], Zeros, Vector),
            ("self_attn.v_proj.bias", &[32], Zeros, Vector),
            ("self_attn.sinks", &[4], Normal, Vector),
            ("self_attn.o_proj.bias", &[64], Zeros, Vector),
            ("post_attention_layernorm.weight", &[64], Ones, Vector),
            ("mlp.router.bias", &[4], Normal, Vector),
            ("mlp.experts.gate_up_proj_bias", &[4, 128], Zeros, Vector),
            ("mlp.experts.down_proj_bias", &[4, 64], Zeros, Vector),
        ];
        for (spec, (name, shape, init, role)) in unit_parameters(&model, block_unit(1)).iter().zip(expected) {
            assert_eq!(spec.name, format!("model.layers.1.{name}"));
            assert_eq!(
                (spec.shape.as_slice(), spec.parameter.init(), spec.role()),
                (shape, init, role),
                "{name}"
            );
        }
        assert_eq!(BlockParameter::VARIANTS.len(), 17);
    }
}
