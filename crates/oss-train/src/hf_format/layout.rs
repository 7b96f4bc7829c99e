//! Which stored tensors make up a parameter, in each layout that gpt-oss is distributed in.

use std::ops::Range;

use safetensors::tensor::Dtype;

use super::{
    config::Dialect,
    mxfp4::{BLOCK_BYTES, BLOCK_VALUES},
};
use crate::model::{BlockParameter::*, Parameter, ParameterSpec, parameters};
use oss_config::Model;

/// How to assemble a parameter from stored tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    /// Stored unchanged.
    Plain(Stored),
    /// Stored as these rows of a fused matrix or vector.
    Rows(Stored, Range<i64>),
    /// Stored transposed, as `[E, out, in]`.
    Swapped(Stored),
    /// Stored as MXFP4 blocks, `[E, out, in]`.
    Mxfp4 { blocks: Stored, scales: Stored },
}

/// A stored tensor that a recipe reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub name: String,
    pub shape: Vec<i64>,
    pub content: Content,
}

/// The elements of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// bf16, f16 or f32 values.
    Floats,
    /// Bytes: MXFP4 blocks or scales.
    Bytes,
}

impl Content {
    /// Whether such elements may be stored as `dtype`.
    pub(super) fn allows(self, dtype: Dtype) -> bool {
        match self {
            Self::Floats => matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32),
            Self::Bytes => dtype == Dtype::U8,
        }
    }
}

impl Recipe {
    /// All stored tensors that it reads.
    pub(super) fn stored(&self) -> Vec<&Stored> {
        match self {
            Self::Plain(stored) | Self::Rows(stored, _) | Self::Swapped(stored) => vec![stored],
            Self::Mxfp4 { blocks, scales } => vec![blocks, scales],
        }
    }
}

/// Every parameter with the recipes that may apply to it, in order of preference.
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

fn hugging_face(spec: &ParameterSpec) -> Vec<Recipe> {
    let plain = Recipe::Plain(floats(spec.name.clone(), &spec.shape));
    let packed = spec.parameter.is_expert_matrix().then(|| mxfp4(&spec.name, '_', &spec.shape)).flatten();
    [Some(plain), packed].into_iter().flatten().collect()
}

/// The MXFP4 recipe of a parameter `[E, in, out]`; `None` if `in` is not a multiple of the block size.
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
    let (name, shape) = (openai_name(spec.parameter), spec.shape.as_slice());
    if spec.parameter.is_expert_matrix() {
        let swapped = [shape[0], shape[2], shape[1]];
        let packed = mxfp4(&name, '.', shape);
        return packed.into_iter().chain([Recipe::Swapped(floats(name, &swapped))]).collect();
    }
    match fused_rows(spec.parameter, model) {
        Some((rows, all)) => {
            vec![Recipe::Rows(floats(name, &[[all].as_slice(), &shape[1..]].concat()), rows)]
        }
        None => vec![Recipe::Plain(floats(name, shape))],
    }
}

/// The name of a parameter, or of the fused tensor that contains it, in OpenAI's layout.
fn openai_name(parameter: Parameter) -> String {
    let (layer, parameter) = match parameter {
        Parameter::Embedding => return "embedding.weight".to_owned(),
        Parameter::LmHead => return "unembedding.weight".to_owned(),
        Parameter::FinalNorm => return "norm.scale".to_owned(),
        Parameter::Block { layer, parameter } => (layer, parameter),
    };
    let part = match parameter {
        AttentionNorm => "attn.norm.scale",
        QWeight | KWeight | VWeight => "attn.qkv.weight",
        QBias | KBias | VBias => "attn.qkv.bias",
        Sinks => "attn.sinks",
        OWeight => "attn.out.weight",
        OBias => "attn.out.bias",
        MlpNorm => "mlp.norm.scale",
        RouterWeight => "mlp.gate.weight",
        RouterBias => "mlp.gate.bias",
        GateUpWeight => "mlp.mlp1_weight",
        GateUpBias => "mlp.mlp1_bias",
        DownWeight => "mlp.mlp2_weight",
        DownBias => "mlp.mlp2_bias",
    };
    format!("block.{layer}.{part}")
}

/// The rows of a parameter in OpenAI's fused projection, which stacks queries, keys and values, and the projection's
/// total number of rows.
fn fused_rows(parameter: Parameter, model: &Model) -> Option<(Range<i64>, i64)> {
    let queries = model.num_attention_heads * model.head_dim;
    let keys = model.num_key_value_heads * model.head_dim;
    let all = queries + 2 * keys;
    let Parameter::Block { parameter, .. } = parameter else { return None };
    match parameter {
        QWeight | QBias => Some((0..queries, all)),
        KWeight | KBias => Some((queries..queries + keys, all)),
        VWeight | VBias => Some((queries + keys..all, all)),
        _ => None,
    }
}
