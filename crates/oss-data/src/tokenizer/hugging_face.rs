//! Tokenizers defined by a Hugging Face `tokenizer.json`, including trained ones.

use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::{END_OF_TEXT, TokenizerError, byte_level, segments::segments, tiktoken};
use crate::caught::caught;

/// Names of the end-of-text token in published tokenizers. They take precedence over the `eos_token` of
/// `tokenizer_config.json`, which for chat models is the end of a turn.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|end▁of▁sentence|>"];

/// Longest text to encode in one go, in bytes: the `tokenizers` crate needs about 150 bytes of memory for each
/// of them.
const LONGEST_WHOLE: usize = 8 * 1024 * 1024;

/// A tokenizer of the `tokenizers` crate.
pub(super) struct HuggingFace {
    inner: tokenizers::Tokenizer,
    /// The file, byte for byte.
    pub(super) json: String,
    pub(super) vocab_size: u32,
    pub(super) end_of_text: u32,
    /// Whether a long text can be split at the boundaries of [`segments`].
    divisible: bool,
}

impl HuggingFace {
    /// Loads a `tokenizer.json` and, if there is one next to it, the `tokenizer_config.json` that may name its
    /// end-of-text token.
    pub(super) fn read(path: &Path) -> Result<Self, TokenizerError> {
        let json = std::fs::read_to_string(path)
            .map_err(|source| TokenizerError::Read { path: path.into(), source })?;
        let config = std::fs::read_to_string(path.with_file_name("tokenizer_config.json")).ok();
        let declared = config.and_then(|text| serde_json::from_str(&text).ok()).and_then(|v| eos_token(&v));
        Self::parse(json, declared.as_deref(), path)
    }

    /// Parses the text of a `tokenizer.json`; `path` is for messages, `declared` its `eos_token` if known.
    pub(super) fn parse(json: String, declared: Option<&str>, path: &Path) -> Result<Self, TokenizerError> {
        let malformed = |reason: String| TokenizerError::Malformed { path: path.into(), reason };
        let mut inner = caught(|| tokenizers::Tokenizer::from_bytes(json.as_bytes()))
            .map_err(&malformed)?
            .map_err(|error| malformed(error.to_string()))?;
        inner.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        inner.with_padding(None);
        // Strings of special tokens inside a document are ordinary text.
        inner.set_encode_special_tokens(true);
        let largest = inner.get_vocab(true).into_values().max();
        let largest = largest.ok_or_else(|| malformed("its vocabulary is empty".into()))?;
        let vocab_size =
            largest.checked_add(1).ok_or_else(|| malformed(format!("it has the ID {largest}")))?;
        let end_of_text = END_OF_TEXT_NAMES
            .into_iter()
            .chain(declared)
            .find_map(|name| inner.token_to_id(name))
            .ok_or_else(|| TokenizerError::NoEndOfText { path: path.into() })?;
        let structure = serde_json::from_str(&json).map_err(|error| malformed(error.to_string()))?;
        Ok(Self { inner, vocab_size, end_of_text, divisible: divisible(&structure), json })
    }

    /// The tokens of `text`, without any added by a post-processor.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if self.divisible {
            let parts = segments(text).collect::<Vec<_>>();
            return match parts.as_slice() {
                [] => Ok(Vec::new()),
                [only] => self.encode_whole(only),
                _ => {
                    let tokens: Result<Vec<_>, _> =
                        parts.into_par_iter().map(|part| self.encode_whole(part)).collect();
                    Ok(tokens?.concat())
                }
            };
        }
        if text.len() > LONGEST_WHOLE {
            return Err(TokenizerError::TooLong { bytes: text.len(), limit: LONGEST_WHOLE });
        }
        self.encode_whole(text)
    }

    fn encode_whole(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match caught(|| self.inner.encode_fast(text, false)) {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Ok(Err(error)) => Err(TokenizerError::Encode { reason: error.to_string() }),
            // The crate's regex engine gives up on text that needs too many steps.
            Err(_) => Err(TokenizerError::Encode { reason: "its regex engine gave up on this text".into() }),
        }
    }

    /// The text of `tokens`, with special tokens spelled out; IDs outside the vocabulary are skipped.
    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        match caught(|| self.inner.decode(tokens, false)) {
            Ok(Ok(text)) => text,
            _ => tokens.iter().filter_map(|&id| self.inner.id_to_token(id)).collect::<Vec<_>>().concat(),
        }
    }

    /// The ID of a special token.
    pub(super) fn special_id(&self, content: &str) -> Option<u32> {
        self.inner
            .get_added_vocabulary()
            .is_special_token(content)
            .then(|| self.inner.token_to_id(content))?
    }

    /// The spelling of a token.
    pub(super) fn spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// The end-of-text token in a `tokenizer_config.json`, given as a string or an object.
fn eos_token(config: &Value) -> Option<String> {
    let token = &config["eos_token"];
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// Whether text can be split by [`segments`]: nothing rewrites it first, and one of the known patterns splits it.
fn divisible(tokenizer: &Value) -> bool {
    let gpt2 = tokenizer["pre_tokenizer"]["type"] == "ByteLevel"
        && tokenizer["pre_tokenizer"]["add_prefix_space"] == false
        && tokenizer["pre_tokenizer"]["use_regex"] != false;
    let known =
        || tiktoken::PATTERNS.iter().any(|p| tokenizer["pre_tokenizer"] == byte_level::pre_tokenizer(p));
    let only_specials = tokenizer["added_tokens"]
        .as_array()
        .is_none_or(|added| added.iter().all(|token| token["special"] == true));
    tokenizer["normalizer"].is_null() && only_specials && (gpt2 || known())
}
