//! Every parameter of the architecture: name, shape, initialisation and treatment, unit by unit.
//!
//! D hidden, H query heads, K key/value heads, C head dim, E experts, F expert width, V vocabulary.

use crate::experiment::Model;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Normal with mean 0 and the model's `initializer_range`.
    Normal,
    /// All zero.
    Zeros,
    /// All one.
    Ones,
}

/// How a parameter is treated by the optimizer and in the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The embedding or the head, a row for each word: treated as matrices are, but for Muon.
    Vocabulary,
    /// Decays, and is cast to the training precision for the matrix products.
    Matrix,
    /// The router's matrix: decays, but stays f32.
    Router,
    /// Norms, biases and sinks: no decay, f32.
    Vector,
}

impl Role {
    /// Whether it decays and is cast to the training precision.
    pub fn is_matrix(self) -> bool {
        matches!(self, Self::Vocabulary | Self::Matrix)
    }
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Its Hugging Face name.
    pub name: String,
    /// Its shape; experts' matrices are `[E, in, out]`.
    pub shape: Vec<i64>,
    /// How it starts.
    pub init: Init,
    /// How it is treated.
    pub role: Role,
}

impl ParameterSpec {
    fn new(name: String, shape: &[i64], init: Init, role: Role) -> Self {
        Self { name, shape: shape.to_vec(), init, role }
    }

    /// Number of elements.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// The vocabulary's size, which the runner fills in from the tokenizer.
///
/// # Panics
/// When nobody set it: a bug of the caller.
pub fn vocab_size(model: &Model) -> i64 {
    model.vocab_size.unwrap_or_else(|| unreachable!("model.vocab_size is resolved before the model is used"))
}

/// Number of units in the chain: embedding, blocks, head.
pub fn num_units(model: &Model) -> usize {
    model.num_hidden_layers as usize + 2
}

/// Parameters of the chain's unit `index` (0 is the embedding, the last is the head), roles in order.
pub fn unit_parameters(model: &Model, index: usize) -> Vec<ParameterSpec> {
    let vocab = vocab_size(model);
    let hidden = model.hidden_size;
    if index == 0 {
        let name = "model.embed_tokens.weight".to_owned();
        return vec![ParameterSpec::new(name, &[vocab, hidden], Init::Normal, Role::Vocabulary)];
    }
    if index + 1 == num_units(model) {
        return vec![
            ParameterSpec::new("lm_head.weight".to_owned(), &[vocab, hidden], Init::Normal, Role::Vocabulary),
            ParameterSpec::new("model.norm.weight".to_owned(), &[hidden], Init::Ones, Role::Vector),
        ];
    }
    block_parameters(model, index - 1)
}

fn block_parameters(model: &Model, layer: usize) -> Vec<ParameterSpec> {
    let Model { hidden_size: d, head_dim: c, num_local_experts: e, intermediate_size: f, .. } = *model;
    let (q, kv) = (model.num_attention_heads * c, model.num_key_value_heads * c);
    let table: [(&str, &[i64], Init, Role); 17] = [
        ("self_attn.q_proj.weight", &[q, d], Init::Normal, Role::Matrix),
        ("self_attn.k_proj.weight", &[kv, d], Init::Normal, Role::Matrix),
        ("self_attn.v_proj.weight", &[kv, d], Init::Normal, Role::Matrix),
        ("self_attn.o_proj.weight", &[d, q], Init::Normal, Role::Matrix),
        ("mlp.experts.gate_up_proj", &[e, d, 2 * f], Init::Normal, Role::Matrix),
        ("mlp.experts.down_proj", &[e, f, d], Init::Normal, Role::Matrix),
        ("mlp.router.weight", &[e, d], Init::Normal, Role::Router),
        ("input_layernorm.weight", &[d], Init::Ones, Role::Vector),
        ("self_attn.q_proj.bias", &[q], Init::Zeros, Role::Vector),
        ("self_attn.k_proj.bias", &[kv], Init::Zeros, Role::Vector),
        ("self_attn.v_proj.bias", &[kv], Init::Zeros, Role::Vector),
        ("self_attn.sinks", &[model.num_attention_heads], Init::Normal, Role::Vector),
        ("self_attn.o_proj.bias", &[d], Init::Zeros, Role::Vector),
        ("post_attention_layernorm.weight", &[d], Init::Ones, Role::Vector),
        ("mlp.router.bias", &[e], Init::Normal, Role::Vector),
        ("mlp.experts.gate_up_proj_bias", &[e, 2 * f], Init::Zeros, Role::Vector),
        ("mlp.experts.down_proj_bias", &[e, d], Init::Zeros, Role::Vector),
    ];
    let prefix = format!("model.layers.{layer}");
    table
        .into_iter()
        .map(|(name, shape, init, role)| ParameterSpec::new(format!("{prefix}.{name}"), shape, init, role))
        .collect()
}

/// Every parameter in the chain's order.
pub fn parameters(model: &Model) -> Vec<ParameterSpec> {
    (0..num_units(model)).flat_map(|unit| unit_parameters(model, unit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Preset;

    fn count(preset: Preset) -> (usize, i64) {
        let model = Model { vocab_size: Some(201_088), ..preset.model() };
        let all = parameters(&model);
        (all.len(), all.iter().map(ParameterSpec::numel).sum())
    }

    #[test]
    fn the_released_shapes_have_their_published_sizes() {
        assert_eq!(count(Preset::B20), (411, 20_914_757_184));
        assert_eq!(count(Preset::B120).1 / 100_000_000, 1168);
    }

    #[test]
    fn roles_come_in_order_so_that_each_is_one_range_of_a_units_buffer() {
        let model = Model { vocab_size: Some(64), ..Preset::Tiny.model() };
        for unit in 0..num_units(&model) {
            let roles: Vec<Role> = unit_parameters(&model, unit).iter().map(|p| p.role).collect();
            assert!(roles.is_sorted(), "unit {unit}: {roles:?}");
        }
    }
}
