//! Which stored tensors make up a parameter, in each of the layouts that gpt-oss is handed around in.

use std::ops::Range;

use safetensors::tensor::Dtype;

use super::{
    config::Dialect,
    mxfp4::{BLOCK_BYTES, BLOCK_VALUES},
};
use crate::{
    experiment::Model,
    model::{ParameterSpec, parameters},
};

/// How a parameter is made from what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    /// Stored as it is.
    Plain(Stored),
    /// These rows of a fused matrix or vector.
    Rows(Stored, Range<i64>),
    /// Stored as [E, out, in].
    Swapped(Stored),
    /// Stored in 4-bit blocks as [E, out, in].
    Mxfp4 { blocks: Stored, scales: Stored },
}

/// A stored tensor that a recipe wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub name: String,
    pub shape: Vec<i64>,
    pub content: Content,
}

/// What a stored tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// bf16, f16 or f32 numbers.
    Floats,
    /// Bytes with a meaning of their own.
    Bytes,
}

impl Content {
    /// Whether a stored form is of this content.
    pub(super) fn allows(self, dtype: Dtype) -> bool {
        match self {
            Self::Floats => matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32),
            Self::Bytes => dtype == Dtype::U8,
        }
    }
}

impl Recipe {
    /// Every stored tensor that it needs.
    pub(super) fn stored(&self) -> Vec<&Stored> {
        match self {
            Self::Plain(stored) | Self::Rows(stored, _) | Self::Swapped(stored) => vec![stored],
            Self::Mxfp4 { blocks, scales } => vec![blocks, scales],
        }
    }
}

/// Every parameter with the recipes that may make it, the usual one first.
pub(super) fn recipes(model: &Model, dialect: Dialect) -> Vec<(ParameterSpec, Vec<Recipe>)> {
    let recipes = |spec: ParameterSpec| {
        let found = match dialect {
            Dialect::HuggingFace => hugging_face(&spec),
            Dialect::OpenAi => openai(&spec, model),
        };
        (spec, found)
    };
    parameters(model).into_iter().map(recipes).collect()
}

fn floats(name: String, shape: &[i64]) -> Stored {
    Stored { name, shape: shape.to_vec(), content: Content::Floats }
}

fn is_expert_matrix(spec: &ParameterSpec) -> bool {
    spec.name.ends_with("experts.gate_up_proj") || spec.name.ends_with("experts.down_proj")
}

fn hugging_face(spec: &ParameterSpec) -> Vec<Recipe> {
    let plain = Recipe::Plain(floats(spec.name.clone(), &spec.shape));
    let packed = is_expert_matrix(spec).then(|| mxfp4(&spec.name, '_', &spec.shape)).flatten();
    [Some(plain), packed].into_iter().flatten().collect()
}

/// 4-bit blocks of a parameter [E, in, out]; none when `in` is no whole number of blocks.
fn mxfp4(name: &str, separator: char, shape: &[i64]) -> Option<Recipe> {
    let [experts, in_width, out_width] = *shape else { return None };
    let groups = (in_width % BLOCK_VALUES == 0).then_some(in_width / BLOCK_VALUES)?;
    let bytes = |what: &str, shape: Vec<i64>| Stored {
        name: format!("{name}{separator}{what}"),
        shape,
        content: Content::Bytes,
    };
    Some(Recipe::Mxfp4 {
        blocks: bytes("blocks", vec![experts, out_width, groups, BLOCK_BYTES]),
        scales: bytes("scales", vec![experts, out_width, groups]),
    })
}

fn openai(spec: &ParameterSpec, model: &Model) -> Vec<Recipe> {
    let name = &spec.name;
    let Some((layer, rest)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        let stored = match name.as_str() {
            "model.embed_tokens.weight" => "embedding.weight",
            "model.norm.weight" => "norm.scale",
            "lm_head.weight" => "unembedding.weight",
            other => other,
        };
        return vec![Recipe::Plain(floats(stored.to_owned(), &spec.shape))];
    };
    let block = |part: &str| format!("block.{layer}.{part}");
    if let Some((projection, part)) = rest.strip_prefix("self_attn.").and_then(|r| r.split_once("_proj."))
        && projection != "o"
    {
        return vec![fused(block(&format!("attn.qkv.{part}")), projection, spec, model)];
    }
    if is_expert_matrix(spec) {
        let stored =
            block(if rest.ends_with("gate_up_proj") { "mlp.mlp1_weight" } else { "mlp.mlp2_weight" });
        let swapped = [spec.shape[0], spec.shape[2], spec.shape[1]];
        let packed = mxfp4(&stored, '.', &spec.shape);
        return packed.into_iter().chain([Recipe::Swapped(floats(stored, &swapped))]).collect();
    }
    let stored = match rest {
        "input_layernorm.weight" => block("attn.norm.scale"),
        "self_attn.o_proj.weight" => block("attn.out.weight"),
        "self_attn.o_proj.bias" => block("attn.out.bias"),
        "self_attn.sinks" => block("attn.sinks"),
        "post_attention_layernorm.weight" => block("mlp.norm.scale"),
        "mlp.router.weight" => block("mlp.gate.weight"),
        "mlp.router.bias" => block("mlp.gate.bias"),
        "mlp.experts.gate_up_proj_bias" => block("mlp.mlp1_bias"),
        "mlp.experts.down_proj_bias" => block("mlp.mlp2_bias"),
        other => block(other),
    };
    vec![Recipe::Plain(floats(stored, &spec.shape))]
}

/// Rows of the fused projection, which stacks queries, keys and values.
fn fused(stored: String, projection: &str, spec: &ParameterSpec, model: &Model) -> Recipe {
    let queries = model.num_attention_heads * model.head_dim;
    let keys = model.num_key_value_heads * model.head_dim;
    let start = match projection {
        "q" => 0,
        "k" => queries,
        _ => queries + keys,
    };
    let mut shape = spec.shape.clone();
    let rows = std::mem::replace(&mut shape[0], queries + 2 * keys);
    Recipe::Rows(floats(stored, &shape), start..start + rows)
}
