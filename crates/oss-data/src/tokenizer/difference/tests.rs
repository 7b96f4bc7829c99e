//! Equal tokenizers in other forms, and unequal ones.

use serde_json::{Value, json};

use super::*;
use crate::Document;
use crate::tokenizer::byte_level;
use oss_config::TokenizerChoice;

fn named(name: &str) -> Tokenizer {
    Tokenizer::load(&TokenizerChoice::Named(name.into()), None).unwrap()
}

fn trained(text: &str) -> Tokenizer {
    let document = Document { text: text.repeat(20), place: "row".into() };
    Tokenizer::train([Ok(document)].into_iter(), 262, &|| Ok(())).unwrap()
}

/// The tokenizer of the `tokenizer.json` that `change` makes of another.
fn changed(tokenizer: &Tokenizer, change: impl FnOnce(&mut Value)) -> Tokenizer {
    let mut json = serde_json::from_str(&tokenizer.hugging_face_json()).unwrap();
    change(&mut json);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::from_file(dir.path(), None).unwrap()
}

#[test]
fn an_encoding_and_its_file_are_equal() {
    for name in ["bytes", "o200k_harmony", "cl100k_base"] {
        let ours = named(name);
        let file = changed(&ours, |json| json["version"] = json!("1.0"));
        assert_ne!(ours.digest(), file.digest());
        assert_eq!(ours.difference(&file).unwrap(), None, "{name}");
        assert_eq!(file.difference(&ours).unwrap(), None, "{name}");
    }
    assert_eq!(named("o200k_base").difference(&named("o200k_harmony")).unwrap(), None, "special tokens only");
}

#[test]
fn more_special_tokens_make_no_difference() {
    let ours = trained("the cat sat on the mat, ");
    let more = changed(&ours, |json| {
        json["added_tokens"].as_array_mut().unwrap().push(byte_level::special_token(262, "<|tool|>"));
    });
    assert_eq!(more.difference(&ours).unwrap(), None);
    assert_eq!(ours.difference(&more).unwrap(), None);
}

#[test]
fn other_merges_are_a_difference() {
    let (cat, dog) = (trained("the cat sat on the mat, "), trained("a dog digs big dogs, "));
    let Some(Difference::Vocabulary { count, id, ours: Some(ours), theirs }) = dog.difference(&cat).unwrap()
    else {
        panic!("other tokens");
    };
    assert!((1..=5).contains(&count) && id >= 256 && ours != theirs, "{count} {id} {ours} {theirs}");
    let shown = dog.difference(&cat).unwrap().unwrap().to_string();
    assert!(shown.starts_with(&format!("token {id} is {ours:?} instead of {theirs:?}")), "{shown}");
}

#[test]
fn a_missing_token_is_a_difference() {
    let ours = trained("the cat sat on the mat, ");
    let more = changed(&ours, |json| {
        json["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": 262, "content": "mat, the", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false,
        }));
    });
    let missing = Difference::Vocabulary { count: 1, id: 262, ours: None, theirs: "mat, the".into() };
    assert_eq!(ours.difference(&more).unwrap(), Some(missing));
    // The probe has none of it, so its other tokens mean the same.
    assert_eq!(more.difference(&ours).unwrap(), None);
}

#[test]
fn other_rules_are_a_difference() {
    let ours = trained("the cat sat on the mat, ");
    let lowercase = changed(&ours, |json| json["normalizer"] = json!({ "type": "Lowercase" }));
    assert_eq!(lowercase.difference(&ours).unwrap(), Some(Difference::Rules));
    let numbers = trained("12345 and 12345, ");
    let digit_by_digit = changed(&numbers, |json| {
        let split = json["pre_tokenizer"].take();
        let digits = json!({ "type": "Digits", "individual_digits": true });
        json["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [digits, split] });
    });
    assert_eq!(digit_by_digit.difference(&numbers).unwrap(), Some(Difference::Rules));
}
