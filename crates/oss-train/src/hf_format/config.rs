//! `config.json`: the architecture of a gpt-oss model, as written by transformers or OpenAI's own code.

use std::fmt::Display;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::TokenizerFiles;
use oss_config::error::UserError;
use oss_config::{LayerType, Model, RopeScaling};

/// Whose key and tensor names a directory uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `model_type` and `model.layers.N...`.
    HuggingFace,
    /// `num_experts` and `block.N...`.
    OpenAi,
}

/// The alpha of the experts' SwiGLU, which is not configurable in [`Model`].
const SWIGLU_ALPHA: f64 = 1.702;
/// Upper limit for widths, and for numbers of heads and experts.
const MAX_WIDTH: i64 = 1 << 20;
/// Upper limit for the vocabulary size and the context length.
const MAX_LENGTH: i64 = 1 << 31;
/// Upper limit for the number of layers.
const MAX_LAYERS: i64 = 1 << 12;

/// Parses a configuration. The error lists every key that is missing, has the wrong type, or does not describe gpt-oss.
pub(super) fn parse(config: &Value) -> Result<(Model, Dialect)> {
    let Value::Object(object) = config else { bail!("not a JSON object") };
    let mut fields = Fields { object, prefix: "", problems: Vec::new() };
    let (model, dialect) = match object.get("model_type") {
        None if object.contains_key("num_experts") => (openai(&mut fields), Dialect::OpenAi),
        Some(Value::String(kind)) if kind == "gpt_oss" => (hugging_face(&mut fields), Dialect::HuggingFace),
        None => bail!(UserError::failed("model_type is missing").hint("only gpt_oss models are supported")),
        Some(other) => bail!(
            UserError::failed(format!("model_type is {other}")).hint("only gpt_oss models are supported")
        ),
    };
    if model.num_key_value_heads > 0 && model.num_attention_heads % model.num_key_value_heads != 0 {
        fields.problem("num_key_value_heads", "does not divide num_attention_heads");
    }
    if model.num_experts_per_tok > model.num_local_experts {
        fields.problem("num_experts_per_tok", "is larger than the number of experts");
    }
    match fields.problems.len() {
        0 => Ok((model, dialect)),
        _ => bail!("not the configuration of a gpt-oss model:\n  {}", fields.problems.join("\n  ")),
    }
}

fn hugging_face(fields: &mut Fields) -> Model {
    fields.must_be("hidden_act", json!("silu"), true);
    fields.must_be("attention_bias", json!(true), true);
    fields.must_be("tie_word_embeddings", json!(false), true);
    fields.must_be("swiglu_alpha", json!(SWIGLU_ALPHA), true);
    if let Some(method) = fields.object.get("quantization_config").map(|config| &config["quant_method"])
        && method != "mxfp4"
    {
        fields.problem(
            "quantization_config",
            format!("has quant_method {method}; only \"mxfp4\" is supported"),
        );
    }
    let experts_key = if fields.object.contains_key("num_experts_per_tok") {
        "num_experts_per_tok"
    } else {
        "experts_per_token"
    };
    let num_hidden_layers = fields.integer("num_hidden_layers", MAX_LAYERS);
    let (rope_theta, rope_scaling) = rope(fields);
    Model {
        vocab_size: Some(fields.integer("vocab_size", MAX_LENGTH)),
        hidden_size: fields.integer("hidden_size", MAX_WIDTH),
        num_hidden_layers,
        num_attention_heads: fields.integer("num_attention_heads", MAX_WIDTH),
        num_key_value_heads: fields.integer("num_key_value_heads", MAX_WIDTH),
        head_dim: fields.integer("head_dim", MAX_WIDTH),
        num_local_experts: fields.integer("num_local_experts", MAX_WIDTH),
        num_experts_per_tok: fields.integer(experts_key, MAX_WIDTH),
        intermediate_size: fields.integer("intermediate_size", MAX_WIDTH),
        sliding_window: fields.integer("sliding_window", MAX_LENGTH),
        layer_types: layer_types(fields, num_hidden_layers),
        rope_theta,
        rope_scaling,
        max_position_embeddings: fields.integer("max_position_embeddings", MAX_LENGTH),
        rms_norm_eps: fields.number("rms_norm_eps", None),
        swiglu_limit: fields.number("swiglu_limit", Some(Model::default().swiglu_limit)),
        initializer_range: fields.number("initializer_range", Some(Model::default().initializer_range)),
        preset: None,
        init_from: None,
    }
}

/// The RoPE settings. transformers 5 has all of them in `rope_parameters`; transformers 4 has `rope_scaling` and a
/// top-level `rope_theta`. If both are present, transformers 5 reads `rope_scaling`; here, they must agree.
fn rope(fields: &mut Fields) -> (f64, RopeScaling) {
    let mut found = Vec::new();
    for prefix in ["rope_parameters", "rope_scaling"] {
        let Some(Value::Object(object)) = fields.object.get(prefix) else { continue };
        let mut inner = Fields { object, prefix, problems: Vec::new() };
        inner.must_be("rope_type", json!("yarn"), false);
        // transformers rounds the ends of the ramp unless `truncate` is false.
        inner.must_be("truncate", json!(false), false);
        inner.must_be("partial_rotary_factor", json!(1.0), true);
        for key in ["attention_factor", "mscale", "mscale_all_dim"] {
            inner.must_be(key, Value::Null, true);
        }
        let theta = object.get("rope_theta").or_else(|| fields.object.get("rope_theta"));
        let theta = theta.and_then(Value::as_f64).unwrap_or_else(|| {
            inner.problem("rope_theta", "is missing or not a number");
            0.0
        });
        let scaling = RopeScaling {
            factor: inner.number("factor", None),
            beta_fast: inner.number("beta_fast", Some(RopeScaling::default().beta_fast)),
            beta_slow: inner.number("beta_slow", Some(RopeScaling::default().beta_slow)),
            original_max_position_embeddings: inner.integer("original_max_position_embeddings", MAX_LENGTH),
        };
        fields.problems.append(&mut inner.problems);
        found.push((theta, scaling));
    }
    if found.len() == 2 && found[0] != found[1] {
        fields.problem("rope_parameters", "contradicts rope_scaling");
    }
    if found.is_empty() {
        fields.problem("rope_parameters", "and rope_scaling are both missing");
    }
    found.pop().unwrap_or_default()
}

/// The listed layer types; `None` if they alternate as they do by default.
fn layer_types(fields: &mut Fields, num_hidden_layers: i64) -> Option<Vec<LayerType>> {
    let listed = fields.object.get("layer_types").filter(|value| !value.is_null())?;
    let types: Vec<LayerType> = match serde_json::from_value(listed.clone()) {
        Ok(types) => types,
        Err(error) => {
            fields.problem("layer_types", error);
            return None;
        }
    };
    if types.len() as i64 != num_hidden_layers {
        fields.problem("layer_types", format!("has {} entries for {num_hidden_layers} layers", types.len()));
        return None;
    }
    let default = Model { layer_types: None, ..Model::default() };
    let alternates = types.iter().enumerate().all(|(i, kind)| *kind == default.layer_type(i as i64));
    (!alternates).then_some(types)
}

fn openai(fields: &mut Fields) -> Model {
    let original = fields.integer("initial_context_length", MAX_LENGTH);
    let factor = fields.number("rope_scaling_factor", None);
    Model {
        vocab_size: Some(fields.integer("vocab_size", MAX_LENGTH)),
        hidden_size: fields.integer("hidden_size", MAX_WIDTH),
        num_hidden_layers: fields.integer("num_hidden_layers", MAX_LAYERS),
        num_attention_heads: fields.integer("num_attention_heads", MAX_WIDTH),
        num_key_value_heads: fields.integer("num_key_value_heads", MAX_WIDTH),
        head_dim: fields.integer("head_dim", MAX_WIDTH),
        num_local_experts: fields.integer("num_experts", MAX_WIDTH),
        num_experts_per_tok: fields.integer("experts_per_token", MAX_WIDTH),
        intermediate_size: fields.integer("intermediate_size", MAX_WIDTH),
        sliding_window: fields.integer("sliding_window", MAX_LENGTH),
        layer_types: None,
        rope_theta: fields.number("rope_theta", None),
        rope_scaling: RopeScaling {
            factor,
            beta_fast: fields.number("rope_ntk_beta", None),
            beta_slow: fields.number("rope_ntk_alpha", None),
            original_max_position_embeddings: original,
        },
        max_position_embeddings: (original as f64 * factor) as i64,
        swiglu_limit: fields.number("swiglu_limit", Some(Model::default().swiglu_limit)),
        ..Model::default()
    }
}

/// A JSON object, and the problems found in it so far.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Key of the object itself; empty for the whole file.
    prefix: &'a str,
    problems: Vec<String>,
}

impl Fields<'_> {
    fn problem(&mut self, key: &str, what: impl Display) {
        let dot = if self.prefix.is_empty() { "" } else { "." };
        self.problems.push(format!("{}{dot}{key} {what}", self.prefix));
    }

    /// An integer from 1 to `most`.
    fn integer(&mut self, key: &str, most: i64) -> i64 {
        match self.object.get(key) {
            Some(value) => match value.as_i64().filter(|n| (1..=most).contains(n)) {
                Some(number) => return number,
                None => self.problem(key, format!("is {value}, not an integer from 1 to {most}")),
            },
            None => self.problem(key, "is missing"),
        }
        0
    }

    fn number(&mut self, key: &str, default: Option<f64>) -> f64 {
        match (self.object.get(key), default) {
            (Some(value), _) => value.as_f64().unwrap_or_else(|| {
                self.problem(key, format!("is {value}, not a number"));
                0.0
            }),
            (None, Some(default)) => default,
            (None, None) => {
                self.problem(key, "is missing");
                0.0
            }
        }
    }

    /// Reports a problem unless the key has the value that is hard-coded in gpt-oss.
    fn must_be(&mut self, key: &str, expected: Value, may_be_missing: bool) {
        match self.object.get(key) {
            None if may_be_missing => {}
            None => self.problem(key, format!("is missing; only {expected} is supported")),
            Some(value) if *value == expected || (may_be_missing && value.is_null()) => {}
            Some(value) => self.problem(key, format!("is {value}; only {expected} is supported")),
        }
    }
}

/// The `config.json` of an exported model, with the keys in the order of the released ones.
pub(super) fn to_json(model: &Model, dtype: &str, tokenizer: &TokenizerFiles) -> Value {
    let layer_types: Vec<LayerType> = (0..model.num_hidden_layers).map(|i| model.layer_type(i)).collect();
    let RopeScaling { factor, beta_fast, beta_slow, original_max_position_embeddings } = model.rope_scaling;
    let rope_scaling = json!({
        "beta_fast": beta_fast,
        "beta_slow": beta_slow,
        "factor": factor,
        "original_max_position_embeddings": original_max_position_embeddings,
        "rope_type": "yarn",
        "truncate": false,
    });
    let mut rope_parameters = rope_scaling.clone();
    rope_parameters["rope_theta"] = json!(model.rope_theta);
    json!({
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": true,
        "attention_dropout": 0.0,
        "dtype": dtype,
        "eos_token_id": tokenizer.eos_token_ids.first(),
        "experts_per_token": model.num_experts_per_tok,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.hidden_size,
        "initial_context_length": original_max_position_embeddings,
        "initializer_range": model.initializer_range,
        "intermediate_size": model.intermediate_size,
        "layer_types": layer_types,
        "max_position_embeddings": model.max_position_embeddings,
        "model_type": "gpt_oss",
        "num_attention_heads": model.num_attention_heads,
        "num_experts_per_tok": model.num_experts_per_tok,
        "num_hidden_layers": model.num_hidden_layers,
        "num_key_value_heads": model.num_key_value_heads,
        "num_local_experts": model.num_local_experts,
        "output_router_logits": false,
        "pad_token_id": tokenizer.pad_token_id,
        "rms_norm_eps": model.rms_norm_eps,
        "rope_parameters": rope_parameters,
        "rope_scaling": rope_scaling,
        "rope_theta": model.rope_theta,
        "router_aux_loss_coef": 0.9,
        "sliding_window": model.sliding_window,
        "swiglu_limit": model.swiglu_limit,
        "tie_word_embeddings": false,
        "use_cache": true,
        "vocab_size": model.vocab_size,
    })
}

/// The `generation_config.json` of an exported model.
pub(super) fn generation_json(tokenizer: &TokenizerFiles) -> Value {
    let mut fields = Map::new();
    if let Some(bos) = tokenizer.bos_token_id {
        fields.insert("bos_token_id".into(), json!(bos));
    }
    fields.insert("do_sample".into(), json!(true));
    fields.insert("eos_token_id".into(), json!(tokenizer.eos_token_ids));
    if let Some(pad) = tokenizer.pad_token_id {
        fields.insert("pad_token_id".into(), json!(pad));
    }
    Value::Object(fields)
}
