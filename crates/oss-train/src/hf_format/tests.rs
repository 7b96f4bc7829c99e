//! Configurations: which are accepted, which are refused, and that written ones can be read back.

use serde_json::{Value, json};

use super::{
    config::{self, Dialect},
    *,
};
use oss_config::{LayerType, Model, Preset, RopeScaling};

fn tokenizer() -> TokenizerFiles {
    TokenizerFiles {
        tokenizer_json: "{}".into(),
        tokenizer_config: json!({}),
        bos_token_id: Some(199_998),
        eos_token_ids: vec![200_002, 199_999, 200_012],
        pad_token_id: Some(199_999),
    }
}

fn released() -> Model {
    Model { vocab_size: Some(201_088), ..Preset::B20.model() }
}

/// The `config.json` of the released 20b model, without its `quantization_config`.
fn released_json() -> Value {
    let kinds = ["sliding_attention", "full_attention"];
    json!({
        "architectures": ["GptOssForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
        "eos_token_id": 200_002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2880, "initial_context_length": 4096, "initializer_range": 0.02,
        "intermediate_size": 2880, "layer_types": (0..24).map(|i| kinds[i % 2]).collect::<Vec<_>>(),
        "max_position_embeddings": 131_072, "model_type": "gpt_oss", "num_attention_heads": 64,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
        "output_router_logits": false, "pad_token_id": 199_999, "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
            "rope_type": "yarn", "truncate": false,
        },
        "rope_theta": 150_000.0, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
        "tie_word_embeddings": false, "use_cache": true, "vocab_size": 201_088,
    })
}

fn without(mut config: Value, keys: &[&str]) -> Value {
    keys.iter().for_each(|key| {
        config.as_object_mut().unwrap().remove(*key);
    });
    config
}

fn problems(config: &Value) -> String {
    config::parse(config).unwrap_err().to_string()
}

#[test]
fn the_released_configuration_is_the_20b_preset() {
    assert_eq!(config::parse(&released_json()).unwrap(), (released(), Dialect::HuggingFace));
    let mut quantized = released_json();
    quantized["quantization_config"] = json!({ "modules_to_not_convert": [], "quant_method": "mxfp4" });
    assert_eq!(config::parse(&quantized).unwrap().0, released());
}

#[test]
fn the_exported_configuration_matches_the_released_one() {
    let written = config::to_json(&released(), "bfloat16", &tokenizer());
    assert_eq!(written["dtype"], "bfloat16");
    assert_eq!(written["rope_parameters"]["rope_theta"], 150_000.0);
    assert_eq!(without(written, &["dtype", "rope_parameters"]), released_json());
    let generation = json!({
        "bos_token_id": 199_998, "do_sample": true, "eos_token_id": [200_002, 199_999, 200_012],
        "pad_token_id": 199_999,
    });
    assert_eq!(config::generation_json(&tokenizer()), generation);
}

#[test]
fn a_written_configuration_can_be_read_back() {
    use LayerType::{FullAttention, SlidingAttention};
    let rope_scaling = RopeScaling { factor: 8.0, beta_fast: 16.0, beta_slow: 2.0, ..Default::default() };
    let odd = Model {
        vocab_size: Some(77),
        layer_types: Some(vec![FullAttention, SlidingAttention]),
        rope_theta: 10_000.0,
        rope_scaling,
        swiglu_limit: 5.5,
        initializer_range: 0.008,
        rms_norm_eps: 1e-6,
        ..Preset::Tiny.model()
    };
    let written = config::to_json(&odd, "float32", &tokenizer());
    assert_eq!(config::parse(&written).unwrap().0, odd);
    // Either form of the RoPE settings is enough.
    assert_eq!(config::parse(&without(written.clone(), &["rope_scaling", "rope_theta"])).unwrap().0, odd);
    assert_eq!(config::parse(&without(written, &["rope_parameters"])).unwrap().0, odd);
}

#[test]
fn all_problems_are_reported_together() {
    let mut config = without(released_json(), &["vocab_size", "head_dim"]);
    config["hidden_size"] = json!("wide");
    config["num_local_experts"] = json!(-1);
    config["hidden_act"] = json!("gelu");
    config["layer_types"] = json!(["sliding_attention"]);
    config["rope_scaling"]["truncate"] = json!(true);
    config["rope_scaling"]["rope_type"] = json!("linear");
    config["quantization_config"] = json!({ "quant_method": "awq" });
    let message = problems(&config);
    for part in [
        "vocab_size is missing",
        "head_dim is missing",
        "hidden_size is \"wide\", not an integer",
        "num_local_experts is -1",
        "hidden_act is \"gelu\"; only \"silu\" is supported",
        "layer_types has 1 entries for 24 layers",
        "rope_scaling.truncate is true",
        "rope_scaling.rope_type is \"linear\"",
        "quant_method \"awq\"",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
}

#[test]
fn other_models_and_malformed_configurations_are_refused() {
    let mut llama = released_json();
    llama["model_type"] = json!("llama");
    assert!(problems(&llama).contains("model_type is \"llama\""));
    assert!(problems(&json!({})).contains("model_type is missing"));
    assert!(problems(&json!([])).contains("not a JSON object"));
    let message = problems(&without(released_json(), &["rope_scaling"]));
    assert!(message.contains("rope_parameters and rope_scaling are both missing"), "{message}");
    let mut contradictory = config::to_json(&released(), "bfloat16", &tokenizer());
    contradictory["rope_parameters"]["factor"] = json!(2.0);
    assert!(problems(&contradictory).contains("contradicts rope_scaling"));
}

#[test]
fn openais_configuration_is_the_120b_preset() {
    let config = json!({
        "num_hidden_layers": 36, "num_experts": 128, "experts_per_token": 4, "vocab_size": 201_088,
        "hidden_size": 2880, "intermediate_size": 2880, "swiglu_limit": 7.0, "head_dim": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "sliding_window": 128,
        "initial_context_length": 4096, "rope_theta": 150_000, "rope_scaling_factor": 32.0, "rope_ntk_alpha": 1,
        "rope_ntk_beta": 32,
    });
    let expected = Model { vocab_size: Some(201_088), ..Preset::B120.model() };
    assert_eq!(config::parse(&config).unwrap(), (expected, Dialect::OpenAi));
}
