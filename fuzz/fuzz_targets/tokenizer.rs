//! `tokenizer.json`: loads it, describes it, and encodes and decodes a text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oss_data::Tokenizer;
use oss_run_fuzz::{Scratch, only_escaping_panics_count};

const TEXT: &str = "One day, a \u{e9}tude\u{301} of 1,234 <|endoftext|> 猫 don't\n\n \tstopped.";

fuzz_target!(
    init: only_escaping_panics_count(),
    |data: &[u8]| {
        thread_local!(static SCRATCH: Scratch = Scratch::new());
        let path = SCRATCH.with(|scratch| scratch.write("tokenizer.json", data));
        let Ok(tokenizer) = Tokenizer::from_file(&path, None) else { return };
        assert!(i64::from(tokenizer.end_of_text()) < tokenizer.vocab_size());
        tokenizer.tokenizer_config(1024);
        tokenizer.hugging_face_json();
        assert_eq!(tokenizer.stored_json().as_bytes(), data);
        if let Ok(tokens) = tokenizer.encode(TEXT) {
            assert!(tokens.iter().all(|token| i64::from(*token) < tokenizer.vocab_size()));
            tokenizer.decode(&tokens);
        }
    }
);
