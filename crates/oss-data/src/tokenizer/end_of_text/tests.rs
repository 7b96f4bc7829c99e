//! The rule that chooses the end-of-text token, on byte-level tokenizers with a few added tokens.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::tokenizer::{Tokenizer, byte_level, bytes};
use oss_config::TokenizerChoice;
use oss_config::error::ErrorReport;

/// A folder with a tokenizer and the files beside it.
struct Folder(tempfile::TempDir);

impl Folder {
    /// A tokenizer of bytes with these special and ordinary added tokens, from ID 256.
    fn new(special: &[&str], ordinary: &[&str]) -> Self {
        let mut json = bytes::hugging_face();
        let tokens = special.iter().chain(ordinary).zip(256..).map(|(token, id)| {
            let mut token = byte_level::special_token(id, token);
            token["special"] = json!(id < 256 + special.len() as u32);
            token
        });
        json["added_tokens"] = tokens.collect();
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("tokenizer.json", &json.to_string());
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tokenizer.json")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn declare(self, token: Value) -> Self {
        self.write("tokenizer_config.json", &json!({ "eos_token": token }).to_string());
        self
    }

    fn end_of_text(&self) -> EndOfText {
        Tokenizer::from_file(&self.path(), None).unwrap().end_of_text_token().clone()
    }

    fn error(&self) -> String {
        ErrorReport::of(Tokenizer::from_file(&self.path(), None).err().unwrap()).to_string()
    }
}

const CONFIG: &str = "tokenizer_config.json";

#[test]
fn the_declared_token_ends_a_text_and_no_tag_of_html() {
    let gemma = Folder::new(&["<pad>", "<eos>"], &["</s>"]).declare(json!("<eos>"));
    let end = gemma.end_of_text();
    assert_eq!((end.token.as_str(), end.id), ("<eos>", 257));
    assert_eq!(end.reason, EndOfTextReason::Declared { file: CONFIG });
    assert_eq!(end.to_string(), "<eos> (ID 257), declared by tokenizer_config.json");

    // Not even without a declaration.
    let bare = Folder::new(&["<pad>", "<eos>"], &["</s>"]);
    assert_eq!(bare.end_of_text().reason, EndOfTextReason::KnownName { end_of_turn: None });
    assert_eq!(bare.end_of_text().token, "<eos>");
    let none = Folder::new(&["<pad>"], &["</s>", "<|endoftext|>"]);
    assert!(none.error().contains("no known end-of-text token"), "{}", none.error());
}

#[test]
fn a_declared_token_precedes_special_tokens_with_known_names() {
    let both = Folder::new(&["<|endoftext|>", "[SEP]"], &[]).declare(json!({ "content": "[SEP]" }));
    assert_eq!(both.end_of_text().token, "[SEP]");
}

#[test]
fn an_end_of_turn_ends_a_text_only_for_lack_of_a_known_name() {
    for turn in ENDS_OF_TURN {
        let chat = Folder::new(&["<|end_of_text|>", turn], &["</s>"]).declare(json!(turn));
        let end = chat.end_of_text();
        assert_eq!(end.token, "<|end_of_text|>");
        assert_eq!(end.reason, EndOfTextReason::KnownName { end_of_turn: Some(turn.into()) });
        assert!(end.to_string().contains(turn), "{end}");
        let only = Folder::new(&[turn], &["</s>"]).declare(json!(turn)).end_of_text();
        assert_eq!((only.token.as_str(), only.reason), (turn, EndOfTextReason::EndOfTurn { file: CONFIG }));
    }
}

#[test]
fn every_known_name_is_found_where_it_is_special() {
    for name in KNOWN_NAMES {
        assert_eq!(Folder::new(&[name], &[]).end_of_text().token, name);
    }
    // DeepSeek writes its name with full-width bars.
    assert!(KNOWN_NAMES.contains(&"<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>"));
    assert!(!KNOWN_NAMES.iter().any(|name| name.contains("|end\u{2581}")));
}

#[test]
fn older_files_declare_it_in_special_tokens_map() {
    let folder = Folder::new(&["<|endoftext|>", "[SEP]"], &[]);
    folder.write("special_tokens_map.json", &json!({ "eos_token": "[SEP]" }).to_string());
    assert_eq!(folder.end_of_text().reason, EndOfTextReason::Declared { file: "special_tokens_map.json" });
    let folder = folder.declare(json!("<|endoftext|>"));
    assert_eq!(folder.end_of_text().reason, EndOfTextReason::Declared { file: CONFIG });
    // What stops generation says nothing about texts.
    let folder = Folder::new(&["<|endoftext|>", "[SEP]"], &[]).declare(Value::Null);
    folder.write("generation_config.json", &json!({ "eos_token_id": 257 }).to_string());
    assert_eq!(folder.end_of_text().token, "<|endoftext|>");
}

#[test]
fn a_config_that_cannot_be_read_is_named() {
    let folder = Folder::new(&["<|endoftext|>"], &[]);
    for (text, reason) in [
        ("{ \"eos_token\": ", "EOF"),
        ("\u{feff}{ \"eos_token\": \"<|endoftext|>\" }", "byte order mark"),
        ("{ \"eos_token\": 7 }", "eos_token is 7"),
        ("{ \"eos_token\": \"</s>\" }", "\"</s>\", which the tokenizer lacks"),
    ] {
        folder.write(CONFIG, text);
        let error = folder.error();
        assert!(error.contains(CONFIG) && error.contains(reason), "{error}");
        assert!(error.contains("dataset.end_of_text"), "{error}");
        // Then the file does not matter.
        assert!(Tokenizer::from_file(&folder.path(), Some("<|endoftext|>")).is_ok());
    }
    fs::remove_file(folder.0.path().join(CONFIG)).unwrap();
    fs::create_dir(folder.0.path().join(CONFIG)).unwrap();
    assert!(folder.error().contains(CONFIG), "{}", folder.error());
}

#[test]
fn an_experiment_sets_another() {
    let folder = Folder::new(&["<|endoftext|>", "<|eot_id|>"], &[]).declare(json!("<|endoftext|>"));
    let usual = Tokenizer::from_file(&folder.path(), None).unwrap();
    let set = Tokenizer::from_file(&folder.path(), Some("<|eot_id|>")).unwrap();
    assert_eq!((usual.end_of_text(), set.end_of_text()), (256, 257));
    assert_eq!(set.end_of_text_token().reason, EndOfTextReason::Set);
    assert_eq!(set.tokenizer_config(8)["eos_token"], "<|eot_id|>");
    assert_ne!(usual.digest(), set.digest());
    let error = Tokenizer::from_file(&folder.path(), Some("<eot>")).err().unwrap();
    assert!(matches!(error, TokenizerError::LacksEndOfText { .. }));

    let harmony = TokenizerChoice::Named("o200k_harmony".into());
    let set = Tokenizer::load(&harmony, Some("<|return|>")).unwrap();
    assert_eq!((set.end_of_text(), set.special_ids().end), (200_002, vec![200_002, 200_012]));
    assert_ne!(set.digest(), Tokenizer::load(&harmony, None).unwrap().digest());
    let facts = Tokenizer::facts(&harmony, Some("<|return|>")).unwrap();
    assert_eq!((facts.digest, &facts.end_of_text), (Some(set.digest()), set.end_of_text_token()));
    assert!(Tokenizer::load(&harmony, Some("</s>")).is_err());
    let same = Tokenizer::load(&harmony, Some("<|endoftext|>")).unwrap();
    assert_eq!(same.digest(), Tokenizer::load(&harmony, None).unwrap().digest());
}
