//! What a tokenizer exports is what it did in training.

use std::fs;

use super::*;
use crate::Document;
use crate::tokenizer::{Tokenizer, byte_level};

const TEXT: &str = "the cat sat on the mat, the cat sat";

/// A small trained tokenizer with `<s>` and `</s>`, changed by `change`.
fn changed(change: impl Fn(&mut Value)) -> Tokenizer {
    let document = || Ok(Document { text: TEXT.repeat(20), place: "row".into() });
    let trained = Tokenizer::train([document()].into_iter(), 265, &|| Ok(())).unwrap();
    let mut json: Value = serde_json::from_str(&trained.stored_json()).unwrap();
    for (id, token) in [(265, "<s>"), (266, "</s>")] {
        json["added_tokens"].as_array_mut().unwrap().push(byte_level::special_token(id, token));
    }
    change(&mut json);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_file(&path, None).unwrap()
}

fn special(id: &str) -> Value {
    json!({ "SpecialToken": { "id": id, "type_id": 0 } })
}

fn template(single: &[Value]) -> Value {
    let token = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": [
            { "Sequence": { "id": "A", "type_id": 0 } },
            { "Sequence": { "id": "B", "type_id": 1 } },
        ],
        "special_tokens": { "<s>": token("<s>", 265), "</s>": token("</s>", 266) },
    })
}

fn byte_level_processor() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true })
}

/// Post-processors that add tokens, as Llama 3, T5, RoBERTa and BERT have them, and what is left of each.
fn processors() -> [(Value, Value); 5] {
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let begin = template(&[special("<s>"), text.clone()]);
    let (cls, sep) = (json!(["<s>", 265]), json!(["</s>", 266]));
    let trimmed =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let sequence = |processors: Value| json!({ "type": "Sequence", "processors": processors });
    [
        (sequence(json!([byte_level_processor(), begin])), sequence(json!([byte_level_processor()]))),
        (sequence(json!([begin])), Value::Null),
        (template(&[text, special("</s>")]), Value::Null),
        (
            json!({
                "type": "RobertaProcessing", "cls": cls, "sep": sep, "trim_offsets": true,
                "add_prefix_space": false,
            }),
            trimmed,
        ),
        (json!({ "type": "BertProcessing", "cls": cls, "sep": sep }), Value::Null),
    ]
}

#[test]
fn an_export_adds_no_special_tokens() {
    for (processor, left) in processors() {
        let tokenizer = changed(|json| json["post_processor"] = processor.clone());
        let raw = tokenizers::Tokenizer::from_bytes(tokenizer.stored_json()).unwrap();
        let exported = tokenizers::Tokenizer::from_bytes(tokenizer.hugging_face_json()).unwrap();
        let tokens = tokenizer.encode(TEXT).unwrap();
        assert!(raw.encode(TEXT, true).unwrap().len() > tokens.len(), "{processor}");
        assert_eq!(exported.encode(TEXT, true).unwrap().get_ids(), tokens, "{processor}");
        let json: Value = serde_json::from_str(&tokenizer.hugging_face_json()).unwrap();
        assert_eq!(json["post_processor"], left);
        let config = tokenizer.tokenizer_config(64);
        assert!(config.get("add_bos_token").is_none() && config.get("add_eos_token").is_none());
        assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    }
}

#[test]
fn dropout_truncation_and_padding_are_off() {
    let plain = changed(|_| ());
    let tokens = plain.encode(TEXT).unwrap();
    let tokenizer = changed(|json| {
        json["model"]["dropout"] = json!(0.9);
        json["truncation"] =
            json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
        json["padding"] = json!({
            "strategy": { "Fixed": 64 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "!",
        });
    });
    for _ in 0..5 {
        assert_eq!(tokenizer.encode(TEXT).unwrap(), tokens);
    }
    assert_eq!(tokenizer.hugging_face_json(), plain.hugging_face_json());
    assert_ne!(tokenizer.stored_json(), plain.stored_json());
}

#[test]
fn other_tokenizers_are_kept_byte_for_byte() {
    let tokenizer = changed(|json| json["post_processor"] = byte_level_processor());
    assert_eq!(tokenizer.hugging_face_json(), tokenizer.stored_json());
}

#[test]
fn an_export_is_a_fixed_point() {
    for (processor, _) in processors() {
        let exported = changed(|json| json["post_processor"] = processor.clone()).hugging_face_json();
        let mut json: Value = serde_json::from_str(&exported).unwrap();
        assert!(!make_as_trained(&mut json));
    }
}
