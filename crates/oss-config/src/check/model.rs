//! `[model]`: consistency of the dimensions.

use super::Findings;
use crate::{Model, Wanted, url_problem};

pub(super) fn model(model: &Model, found: &mut Findings) {
    if let Some((message, fix)) = model.init_from.as_deref().and_then(|from| url_problem(from, Wanted::Model))
    {
        found.error(&["model.init_from"], message, fix);
    }
    let (heads, kv_heads) = (model.num_attention_heads, model.num_key_value_heads);
    if heads % kv_heads != 0 {
        let keys = ["model.num_attention_heads", "model.num_key_value_heads"];
        let message =
            format!("{heads} query heads cannot be divided evenly among {kv_heads} key/value heads");
        let fix = format!("set model.num_key_value_heads to a divisor of {heads}");
        found.error(&keys, message, fix);
    }
    if model.head_dim % 2 != 0 {
        let message = format!("`model.head_dim` is {}, but RoPE needs an even dimension", model.head_dim);
        found.error(&["model.head_dim"], message, "set it to an even number");
    }
    if model.num_experts_per_tok > model.num_local_experts {
        let keys = ["model.num_experts_per_tok", "model.num_local_experts"];
        let message = format!(
            "cannot route each token to {} of {} experts",
            model.num_experts_per_tok, model.num_local_experts
        );
        let fix = format!("set model.num_experts_per_tok to at most {}", model.num_local_experts);
        found.error(&keys, message, fix);
    }
    if let Some(types) = &model.layer_types
        && types.len() as i64 != model.num_hidden_layers
    {
        let keys = ["model.layer_types", "model.num_hidden_layers"];
        let message = format!("{} layer types for {} layers", types.len(), model.num_hidden_layers);
        found.error(&keys, message, "list one type per layer, or omit `layer_types` for alternating layers");
    }
    let rope = &model.rope_scaling;
    if rope.beta_fast <= rope.beta_slow {
        let keys = ["model.rope_scaling.beta_fast", "model.rope_scaling.beta_slow"];
        let message = format!("beta_fast ({}) must be above beta_slow ({})", rope.beta_fast, rope.beta_slow);
        found.error(&keys, message, "the released models use 32 and 1");
    }
}
