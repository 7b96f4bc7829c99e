//! Building blocks of a byte-level BPE tokenizer in the format of Hugging Face's `tokenizer.json`.

use serde_json::{Map, Value, json};

/// The printable characters that represent bytes in byte-level vocabularies: visible Latin-1 characters represent
/// themselves, the other bytes, in order, the characters from U+0100.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| character(byte)).collect()
}

fn character(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|&b| !visible(b)).count() as u32;
    // At most 68 bytes are not printable, so the code point is far below the surrogates.
    char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Converts bytes to characters and back, without splitting.
pub(super) fn without_regex() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false })
}

/// Splits by `pattern`, then converts bytes to characters.
pub(super) fn pre_tokenizer(pattern: &str) -> Value {
    json!({
        "type": "Sequence",
        "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
            without_regex(),
        ],
    })
}

/// The entry of a special token in `added_tokens`.
pub(super) fn special_token(id: u32, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// The BPE model; with `whole_words`, a piece that is a token is used as is, without merging its bytes.
pub(super) fn model(vocab: Map<String, Value>, merges: Vec<Value>, whole_words: bool) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_words,
        "vocab": vocab, "merges": merges,
    })
}
