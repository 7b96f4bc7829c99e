//! `[model]`: the architecture, with Hugging Face's field names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A gpt-oss architecture and its initial weights. The defaults are those of gpt-oss-20b.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Named architecture that sets the fields below. A field set next to it, or in a stronger layer, takes precedence.
    ///
    /// A resolved experiment lists the fields and leaves this empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Initial weights: a run, a path (an oss-run checkpoint or a Hugging Face directory) or a Hub model ID; random if
    /// unset. A value is a path if it starts with `/`, `./`, `../` or `~/`, has more than one slash, or exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
    /// V: vocabulary size; defaults to the tokenizer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16777216))]
    pub vocab_size: Option<i64>,
    /// D: width of the residual stream.
    #[schemars(range(min = 1, max = 131072))]
    pub hidden_size: i64,
    /// Number of transformer blocks.
    #[schemars(range(min = 1, max = 4096))]
    pub num_hidden_layers: i64,
    /// H: number of query heads.
    #[schemars(range(min = 1, max = 4096))]
    pub num_attention_heads: i64,
    /// K: number of key/value heads; must divide H.
    #[schemars(range(min = 1, max = 4096))]
    pub num_key_value_heads: i64,
    /// C: dimension of each head; must be even.
    #[schemars(range(min = 2, max = 4096))]
    pub head_dim: i64,
    /// E: number of experts per layer.
    #[schemars(range(min = 1, max = 16384))]
    pub num_local_experts: i64,
    /// A: number of experts each token is routed to.
    #[schemars(range(min = 1, max = 16384))]
    pub num_experts_per_tok: i64,
    /// F: intermediate size of each expert.
    #[schemars(range(min = 1, max = 131072))]
    pub intermediate_size: i64,
    /// Sliding window: number of keys each query attends to, including its own.
    #[schemars(range(min = 1, max = 16777216))]
    pub sliding_window: i64,
    /// Attention type of each layer; defaults to alternating, starting with sliding attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// RoPE base.
    #[schemars(extend("exclusiveMinimum" = 1))]
    pub rope_theta: f64,
    /// YaRN scaling of RoPE.
    pub rope_scaling: RopeScaling,
    /// Maximum context length in tokens.
    #[schemars(range(min = 1, max = 16777216))]
    pub max_position_embeddings: i64,
    /// Epsilon of every RMSNorm.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rms_norm_eps: f64,
    /// Clamp on the experts' gate and up projections.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub swiglu_limit: f64,
    /// Standard deviation of the initial weights.
    #[schemars(range(min = 0.0))]
    pub initializer_range: f64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            preset: None,
            init_from: None,
            vocab_size: None,
            hidden_size: 2880,
            num_hidden_layers: 24,
            num_attention_heads: 64,
            num_key_value_heads: 8,
            head_dim: 64,
            num_local_experts: 32,
            num_experts_per_tok: 4,
            intermediate_size: 2880,
            sliding_window: 128,
            layer_types: None,
            rope_theta: 150_000.0,
            rope_scaling: RopeScaling::default(),
            max_position_embeddings: 131_072,
            rms_norm_eps: 1e-5,
            swiglu_limit: 7.0,
            initializer_range: 0.02,
        }
    }
}

/// Named architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// gpt-oss-120b as released.
    #[serde(rename = "120b")]
    B120,
    /// gpt-oss-20b as released.
    #[serde(rename = "20b")]
    B20,
    /// 8 layers, hidden size 256, 4 experts (2 active), window 64: 110 M parameters with the o200k vocabulary.
    #[serde(rename = "110m")]
    M110,
    /// 6 layers, hidden size 192, 8 experts (2 active): for small vocabularies; trains in minutes on a laptop.
    #[serde(rename = "small")]
    Small,
    /// 2 layers, hidden size 64, 4 experts (2 active): for tests.
    #[serde(rename = "tiny")]
    Tiny,
}

/// Which keys a layer's queries attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// The last `sliding_window` keys.
    SlidingAttention,
    /// All preceding keys.
    FullAttention,
}

/// YaRN (arXiv:2309.00071) as in gpt-oss, without truncation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RopeScaling {
    /// Factor by which the context is extended.
    #[schemars(range(min = 1.0))]
    pub factor: f64,
    /// Frequencies with more rotations than this over the original context are left unchanged.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta_fast: f64,
    /// Frequencies with fewer rotations than this over the original context are divided by `factor`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta_slow: f64,
    /// Context length before scaling.
    #[schemars(range(min = 1, max = 16777216))]
    pub original_max_position_embeddings: i64,
}

impl Default for RopeScaling {
    fn default() -> Self {
        Self { factor: 32.0, beta_fast: 32.0, beta_slow: 1.0, original_max_position_embeddings: 4096 }
    }
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 5] = [Self::B120, Self::B20, Self::M110, Self::Small, Self::Tiny];

    /// The preset's name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::B120 => "120b",
            Self::B20 => "20b",
            Self::M110 => "110m",
            Self::Small => "small",
            Self::Tiny => "tiny",
        }
    }

    /// The preset with this name in experiment files.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// The fields that the preset sets; the others keep their defaults.
    pub fn model(self) -> Model {
        let base = Model::default();
        match self {
            Self::B120 => Model { num_hidden_layers: 36, num_local_experts: 128, ..base },
            Self::B20 => base,
            Self::M110 => Model {
                hidden_size: 256,
                num_hidden_layers: 8,
                num_attention_heads: 8,
                num_key_value_heads: 2,
                head_dim: 32,
                num_local_experts: 4,
                num_experts_per_tok: 2,
                intermediate_size: 256,
                sliding_window: 64,
                ..base
            },
            Self::Small => Model {
                hidden_size: 192,
                num_hidden_layers: 6,
                num_attention_heads: 6,
                num_key_value_heads: 2,
                head_dim: 32,
                num_local_experts: 8,
                num_experts_per_tok: 2,
                intermediate_size: 192,
                ..base
            },
            Self::Tiny => Model {
                hidden_size: 64,
                num_hidden_layers: 2,
                num_attention_heads: 4,
                num_key_value_heads: 2,
                head_dim: 16,
                num_local_experts: 4,
                num_experts_per_tok: 2,
                intermediate_size: 64,
                sliding_window: 32,
                ..base
            },
        }
    }
}

impl Model {
    /// The attention type of layer `index`: as listed, or else alternating, with sliding attention in even layers.
    pub fn layer_type(&self, index: i64) -> LayerType {
        match &self.layer_types {
            Some(types) => types[index as usize],
            None if index % 2 == 0 => LayerType::SlidingAttention,
            None => LayerType::FullAttention,
        }
    }
}
