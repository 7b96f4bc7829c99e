//! The tokenizer without a vocabulary: each byte is a token.

use serde_json::{Value, json};

use super::byte_level;

/// The 256 bytes and end-of-text.
pub(super) const VOCAB_SIZE: u32 = 257;

/// The token that ends a document.
pub(super) const END_OF_TEXT: u32 = 256;

/// One token per byte of UTF-8.
pub(super) fn encode(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// The bytes of a token; `None` for an ID outside the vocabulary.
pub(super) fn token_bytes(id: u32) -> Option<Vec<u8>> {
    match id {
        END_OF_TEXT => Some(super::END_OF_TEXT.into()),
        _ => u8::try_from(id).ok().map(|byte| vec![byte]),
    }
}

/// The same tokenizer as a Hugging Face `tokenizer.json`: a byte-level BPE model without merges.
pub(super) fn hugging_face() -> Value {
    let vocab = (0..=u8::MAX).map(|byte| (byte_level::text(&[byte]), Value::from(byte)));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [byte_level::special_token(END_OF_TEXT, super::END_OF_TEXT)],
        "normalizer": null,
        "pre_tokenizer": byte_level::without_regex(),
        "post_processor": null,
        "decoder": byte_level::without_regex(),
        "model": byte_level::model(vocab.collect(), Vec::new(), false),
    })
}
