//! The gpt-oss architecture as a chain of units.

use tch::Tensor;

use crate::experiment::Model;

/// One parameter: its Hugging Face name and shape.
pub struct ParameterSpec {
    /// Hugging Face name.
    pub name: String,
    /// Hugging Face shape.
    pub shape: Vec<i64>,
}

/// Where weights come from.
pub trait WeightSource {
    /// The tensor called `name` in Hugging Face's orientation, any float kind, on the CPU.
    fn load(&mut self, name: &str) -> anyhow::Result<Tensor>;
}

/// Every parameter in chain order.
pub fn parameters(model: &Model) -> Vec<ParameterSpec> {
    let (d, c, f, e) = (model.hidden_size, model.head_dim, model.intermediate_size, model.num_local_experts);
    let (q, kv) = (model.num_attention_heads * c, model.num_key_value_heads * c);
    let v = model.vocab_size.unwrap_or(0);
    let mut specs = vec![("model.embed_tokens.weight".to_string(), vec![v, d])];
    for n in 0..model.num_hidden_layers {
        let p = format!("model.layers.{n}");
        let layer = [
            ("input_layernorm.weight", vec![d]),
            ("self_attn.q_proj.weight", vec![q, d]),
            ("self_attn.q_proj.bias", vec![q]),
            ("self_attn.k_proj.weight", vec![kv, d]),
            ("self_attn.k_proj.bias", vec![kv]),
            ("self_attn.v_proj.weight", vec![kv, d]),
            ("self_attn.v_proj.bias", vec![kv]),
            ("self_attn.sinks", vec![model.num_attention_heads]),
            ("self_attn.o_proj.weight", vec![d, q]),
            ("self_attn.o_proj.bias", vec![d]),
            ("post_attention_layernorm.weight", vec![d]),
            ("mlp.router.weight", vec![e, d]),
            ("mlp.router.bias", vec![e]),
            ("mlp.experts.gate_up_proj", vec![e, d, 2 * f]),
            ("mlp.experts.gate_up_proj_bias", vec![e, 2 * f]),
            ("mlp.experts.down_proj", vec![e, f, d]),
            ("mlp.experts.down_proj_bias", vec![e, d]),
        ];
        specs.extend(layer.map(|(name, shape)| (format!("{p}.{name}"), shape)));
    }
    specs.push(("model.norm.weight".into(), vec![d]));
    specs.push(("lm_head.weight".into(), vec![v, d]));
    specs.into_iter().map(|(name, shape)| ParameterSpec { name, shape }).collect()
}
