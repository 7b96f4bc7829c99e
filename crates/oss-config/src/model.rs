//! `[model]`: the architecture, field by field under its Hugging Face name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A gpt-oss architecture and where its first weights come from. The defaults are the 20b model's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Named shape that fills the fields below; a field set beside it, or in a stronger layer, wins.
    ///
    /// Loading an experiment writes the fields out and leaves this empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// First weights: a run, a path (a checkpoint of ours or a Hugging Face directory) or a hub id; random unless set.
    /// A path starts with `/`, `./`, `../` or `~/`, has more than one slash, or exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
    /// V: entries of the vocabulary; the tokenizer's unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16777216))]
    pub vocab_size: Option<i64>,
    /// D: width of the residual stream.
    #[schemars(range(min = 1, max = 131072))]
    pub hidden_size: i64,
    /// Number of blocks.
    #[schemars(range(min = 1, max = 4096))]
    pub num_hidden_layers: i64,
    /// H: query heads.
    #[schemars(range(min = 1, max = 4096))]
    pub num_attention_heads: i64,
    /// K: key/value heads; divides H.
    #[schemars(range(min = 1, max = 4096))]
    pub num_key_value_heads: i64,
    /// C: width of one head; even.
    #[schemars(range(min = 2, max = 4096))]
    pub head_dim: i64,
    /// E: experts of a layer.
    #[schemars(range(min = 1, max = 16384))]
    pub num_local_experts: i64,
    /// A: experts that each token visits.
    #[schemars(range(min = 1, max = 16384))]
    pub num_experts_per_tok: i64,
    /// F: width of an expert.
    #[schemars(range(min = 1, max = 131072))]
    pub intermediate_size: i64,
    /// Keys that a query of a sliding layer sees, itself included.
    #[schemars(range(min = 1, max = 16777216))]
    pub sliding_window: i64,
    /// Kind of each layer; alternating, sliding first, unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// Base of the rotary angles.
    #[schemars(extend("exclusiveMinimum" = 1))]
    pub rope_theta: f64,
    /// YaRN's stretching of the rotary angles.
    pub rope_scaling: RopeScaling,
    /// Longest context the model is declared for.
    #[schemars(range(min = 1, max = 16777216))]
    pub max_position_embeddings: i64,
    /// Epsilon of every RMSNorm.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rms_norm_eps: f64,
    /// Clamp of the experts' gate and up projections.
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

/// Named shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// The released gpt-oss-120b.
    #[serde(rename = "120b")]
    B120,
    /// The released gpt-oss-20b.
    #[serde(rename = "20b")]
    B20,
    /// 8 layers of width 256, 4 experts (2 active), window 64: 110 M parameters with the o200k vocabulary.
    #[serde(rename = "110m")]
    M110,
    /// 6 layers of width 192, 8 experts (2 active): for small vocabularies, minutes on a laptop.
    #[serde(rename = "small")]
    Small,
    /// 2 layers of width 64, 4 experts (2 active): for tests.
    #[serde(rename = "tiny")]
    Tiny,
}

/// Which keys a layer's queries see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// The last `sliding_window` keys.
    SlidingAttention,
    /// All earlier keys.
    FullAttention,
}

/// YaRN (arXiv:2309.00071) as gpt-oss uses it, without truncation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RopeScaling {
    /// How far the context is stretched.
    #[schemars(range(min = 1.0))]
    pub factor: f64,
    /// Rotations over the original context above which a frequency is kept.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta_fast: f64,
    /// Rotations over the original context below which a frequency is divided by `factor`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta_slow: f64,
    /// Context before stretching.
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

    /// The preset as an experiment file names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::B120 => "120b",
            Self::B20 => "20b",
            Self::M110 => "110m",
            Self::Small => "small",
            Self::Tiny => "tiny",
        }
    }

    /// The preset that an experiment file calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// The shape's fields; what a preset does not name keeps its default.
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
    /// The kind of layer `index`: as listed, else alternating with even layers sliding.
    pub fn layer_type(&self, index: i64) -> LayerType {
        match &self.layer_types {
            Some(types) => types[index as usize],
            None if index % 2 == 0 => LayerType::SlidingAttention,
            None => LayerType::FullAttention,
        }
    }
}
