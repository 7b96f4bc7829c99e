//! Tokenizers defined by a Hugging Face `tokenizer.json`, including trained ones.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::as_trained::make_as_trained;
use super::divisible::is_divisible;
use super::end_of_text::{self, Declared, EndOfText};
use super::{TokenizerError, segments::segments};
use crate::caught::caught;

/// Longest text to encode in one go, in bytes: the `tokenizers` crate needs about 150 bytes of memory for each
/// of them.
const LONGEST_WHOLE: usize = 8 * 1024 * 1024;

/// A tokenizer of the `tokenizers` crate.
pub(super) struct HuggingFace {
    inner: tokenizers::Tokenizer,
    /// The file, byte for byte.
    pub(super) json: String,
    /// The file as [`make_as_trained`] leaves it, if that makes a difference.
    as_trained: Option<String>,
    pub(super) vocab_size: u32,
    pub(super) end_of_text: EndOfText,
    /// Whether a long text can be split at the boundaries of [`segments`].
    divisible: bool,
}

impl HuggingFace {
    /// Loads a `tokenizer.json`, or the one in a folder, with the files next to it that may declare its end-of-text
    /// token. `end_of_text` names another.
    pub(super) fn read(path: &Path, end_of_text: Option<&str>) -> Result<Self, TokenizerError> {
        let path = match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_owned(),
        };
        let json = std::fs::read_to_string(&path)
            .map_err(|source| TokenizerError::Read { path: path.clone(), source })?;
        let declared = match end_of_text {
            Some(_) => None,
            None => Declared::beside(&path)?,
        };
        Self::parse(json, end_of_text, declared.as_ref(), &path)
    }

    /// Parses the text of a `tokenizer.json`; `path` is for messages.
    pub(super) fn parse(
        json: String,
        end_of_text: Option<&str>,
        declared: Option<&Declared>,
        path: &Path,
    ) -> Result<Self, TokenizerError> {
        let malformed = |reason: String| TokenizerError::Malformed { path: path.into(), reason };
        let mut structure: Value =
            serde_json::from_str(&json).map_err(|error| malformed(error.to_string()))?;
        let as_trained = make_as_trained(&mut structure).then(|| structure.to_string());
        let used = as_trained.as_ref().unwrap_or(&json);
        let mut inner = caught(|| tokenizers::Tokenizer::from_bytes(used.as_bytes()))
            .map_err(&malformed)?
            .map_err(|error| malformed(error.to_string()))?;
        // Strings of special tokens inside a document are ordinary text.
        inner.set_encode_special_tokens(true);
        let largest = inner.get_vocab(true).into_values().max();
        let largest = largest.ok_or_else(|| malformed("its vocabulary is empty".into()))?;
        let vocab_size =
            largest.checked_add(1).ok_or_else(|| malformed(format!("it has the ID {largest}")))?;
        let end_of_text = end_of_text::find(&inner, end_of_text, declared, path)?;
        Ok(Self { inner, vocab_size, end_of_text, divisible: is_divisible(&structure), as_trained, json })
    }

    /// The `tokenizer.json` that gives the tokens of [`Self::encode`] wherever it is used.
    pub(super) fn as_trained(&self) -> &str {
        self.as_trained.as_ref().unwrap_or(&self.json)
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

    /// The spellings of the tokens that are not special.
    pub(super) fn spellings(&self) -> BTreeMap<u32, String> {
        let added = self.inner.get_added_vocabulary();
        let vocabulary = self.inner.get_vocab(true).into_iter();
        let ordinary = vocabulary.filter(|(token, _)| !added.is_special_token(token));
        ordinary.map(|(token, id)| (id, token)).collect()
    }

    /// The spelling of a token.
    pub(super) fn spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}
