//! What an external `tokenizer.json` does in training: its rules, without what would change the tokens of a text from
//! call to call or add tokens that training never saw.

use serde_json::{Value, json};

/// Turns off truncation, padding, the dropout of merges, and special tokens around a text. Returns whether there was
/// any of these.
pub(super) fn make_as_trained(tokenizer: &mut Value) -> bool {
    let mut changed = false;
    let mut replace = |place: &mut Value, value: Value| {
        changed |= *place != value;
        *place = value;
    };
    for pointer in ["/truncation", "/padding", "/model/dropout"] {
        if let Some(place) = tokenizer.pointer_mut(pointer) {
            replace(place, Value::Null);
        }
    }
    if let Some(processor) = tokenizer.get_mut("post_processor") {
        let without = without_special_tokens(processor);
        replace(processor, without);
    }
    changed
}

/// The post-processor without the tokens that it puts around a text, which leaves the adjustment of offsets.
fn without_special_tokens(processor: &Value) -> Value {
    match processor["type"].as_str() {
        Some("TemplateProcessing" | "BertProcessing") => Value::Null,
        Some("RobertaProcessing") => json!({
            "type": "ByteLevel",
            "add_prefix_space": processor["add_prefix_space"],
            "trim_offsets": processor["trim_offsets"],
            "use_regex": true,
        }),
        Some("Sequence") => {
            let all = processor["processors"].as_array().into_iter().flatten();
            let kept: Vec<Value> = all.map(without_special_tokens).filter(|kept| !kept.is_null()).collect();
            match kept.is_empty() {
                true => Value::Null,
                false => json!({ "type": "Sequence", "processors": kept }),
            }
        }
        _ => processor.clone(),
    }
}

#[cfg(test)]
mod tests;
