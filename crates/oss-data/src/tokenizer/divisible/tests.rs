//! Text divided at boundaries gives the pieces of the whole text, for every known pre-tokenizer.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper,
};

use super::*;
use crate::Document;
use crate::tokenizer::{Tokenizer, byte_level, segments::segments};

fn byte_level_with(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

fn split(pattern: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

fn sequence(steps: Vec<Value>) -> Value {
    json!({ "type": "Sequence", "pretokenizers": steps })
}

/// Every known pre-tokenizer, as published.
fn known() -> Vec<Value> {
    let mut all: Vec<Value> =
        PATTERNS.iter().map(|pattern| sequence(vec![split(pattern), byte_level_with(false)])).collect();
    let mut removing = split(LLAMA3);
    removing["behavior"] = json!("Removed");
    removing["invert"] = json!(true);
    all.push(sequence(vec![removing, byte_level_with(false)]));
    // DeepSeek writes the ends of lines as themselves.
    let deepseek = DEEPSEEK3.map(|pattern| split(&pattern.replace(r"\r\n", "\r\n")));
    all.push(sequence([deepseek.to_vec(), vec![byte_level_with(false)]].concat()));
    let digits = json!({ "type": "Digits", "individual_digits": true });
    all.extend([byte_level_with(true), sequence(vec![digits, byte_level_with(true)])]);
    all
}

/// The pieces of `text` after NFC.
fn pieces(pre_tokenizer: &PreTokenizerWrapper, text: &str) -> Vec<String> {
    let nfc: NormalizerWrapper = serde_json::from_value(json!({ "type": "NFC" })).unwrap();
    let mut normalized = NormalizedString::from(text);
    nfc.normalize(&mut normalized).unwrap();
    let mut pieces = PreTokenizedString::from(normalized);
    pre_tokenizer.pre_tokenize(&mut pieces).unwrap();
    let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    pieces.into_iter().map(|(piece, _, _)| piece.to_owned()).collect()
}

/// `text` cut at every boundary.
fn divided(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let ends = text.char_indices().zip(text.chars().skip(1));
    for ((at, left), right) in ends {
        if is_boundary(left, right) {
            let end = at + left.len_utf8();
            parts.push(&text[start..end]);
            start = end;
        }
    }
    parts.push(&text[start..]);
    parts
}

static COMPILED: LazyLock<Vec<PreTokenizerWrapper>> =
    LazyLock::new(|| known().into_iter().map(|it| serde_json::from_value(it).unwrap()).collect());

fn check(text: &str) {
    let parts = divided(text);
    for pre_tokenizer in COMPILED.iter() {
        let divided: Vec<String> = parts.iter().flat_map(|part| pieces(pre_tokenizer, part)).collect();
        assert_eq!(divided, pieces(pre_tokenizer, text), "{pre_tokenizer:?} on {text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn parts_give_the_pieces_of_the_whole(
        text in prop_oneof![
            "[ -~\r\n\t]{0,80}",
            "([a-zA-Z']{1,5}|[0-9]{1,5}|[ \r\n\t]{1,3}|[-,.;:!?\"/'(]{1,3}){0,40}",
            "[a-z0-9あアー漢龥\u{9fff}がか\u{3099}é\u{301}\u{7f}\u{200d}ſ½٣ ,.;:!?\"，。、\u{a0}\u{3000}\r\n]{0,60}",
            "\\PC{0,60}",
        ],
    ) {
        check(&text);
    }
}

#[test]
fn every_pair_around_a_boundary_is_split_whatever_is_near() {
    let lefts =
        ["a", "7", "漢", "龥", "\u{9fff}", "あ", "é", "e\u{301}", "'s", "-", "。", "\u{7f}", "\u{e000}"];
    let rights = [" ", "x", ",", ".", ";", ":", "!", "?", "\"", "，", "。", "、"];
    for left in lefts {
        for right in rights {
            for around in ["", " ", "a", "1", "\n", "'", "é", "-", "漢"] {
                check(&format!("{around}{left}{right}{around}"));
            }
        }
    }
}

#[test]
fn published_tokenizers_are_divisible() {
    let tokenizer = |pre_tokenizer: &Value, normalizer: Value, added: Value| json!({ "pre_tokenizer": pre_tokenizer, "normalizer": normalizer, "added_tokens": added });
    let empty = json!({ "type": "Sequence", "normalizers": [] });
    let mut call = byte_level::special_token(7, "<tool_call>");
    call["special"] = json!(false);
    for pre_tokenizer in known() {
        for normalizer in [Value::Null, json!({ "type": "NFC" }), empty.clone()] {
            assert!(is_divisible(&tokenizer(&pre_tokenizer, normalizer, json!([call]))), "{pre_tokenizer}");
        }
        assert!(!is_divisible(&tokenizer(&pre_tokenizer, json!({ "type": "NFKC" }), json!([]))));
    }
    let llama = &known()[3];
    let mut spaced = call.clone();
    spaced["content"] = json!("New York");
    let mut strip = call;
    strip["lstrip"] = json!(true);
    for token in [spaced, strip] {
        assert!(!is_divisible(&tokenizer(llama, Value::Null, json!([token]))));
    }
    let mut prefix = byte_level_with(true);
    prefix["add_prefix_space"] = json!(true);
    let metaspace =
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    for other in [prefix, metaspace, sequence(vec![split(r"\s+"), byte_level_with(false)]), sequence(vec![])]
    {
        assert!(!is_divisible(&tokenizer(&other, Value::Null, Value::Null)), "{other}");
    }
}

/// A document above the limit on texts that are encoded in one go, with Llama 3's rules.
#[test]
fn a_long_document_is_encoded_in_parts() {
    let line = "The cat's 12345 mats, \"as I'LL say\"; 漢字。\r\n\n  and 3 more!\n";
    let document = || Ok(Document { text: line.repeat(50), place: "row".into() });
    let trained = Tokenizer::train([document()].into_iter(), 270, &|| Ok(())).unwrap();
    let mut json: Value = serde_json::from_str(&trained.stored_json()).unwrap();
    json["pre_tokenizer"] = sequence(vec![split(LLAMA3), byte_level_with(false)]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&path, None).unwrap();

    let text = line.repeat(200_000 / line.len());
    assert!(segments(&text).count() > 5);
    let whole = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    assert_eq!(tokenizer.encode(&text).unwrap(), whole.encode_fast(text.as_str(), false).unwrap().get_ids());
    let long = line.repeat((9 << 20) / line.len());
    assert_eq!(tokenizer.decode(&tokenizer.encode(&long).unwrap()), long);
}
