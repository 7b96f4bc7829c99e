//! Converts text to tokens and back, and exports tokenizers to Hugging Face.

mod byte_level;
mod bytes;
mod error;
mod hugging_face;
mod o200k;
mod segments;
mod tiktoken;
mod training;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

pub use self::error::TokenizerError;
use self::hugging_face::HuggingFace;
use self::tiktoken::Encoding;
use super::Document;
use oss_config::TokenizerChoice;

/// The end-of-text token of every vocabulary except external ones.
const END_OF_TEXT: &str = "<|endoftext|>";

/// What a plan needs to know about a tokenizer without loading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerInfo {
    /// One more than the largest token ID.
    pub vocab_size: i64,
    /// Digest of its definition; `None` for a tokenizer that is not trained yet.
    pub digest: Option<String>,
}

/// IDs of special tokens for generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// The token that begins a text, if the vocabulary has one.
    pub begin: Option<u32>,
    /// Tokens that end a text, with the one in `config.json` first.
    pub end: Vec<u32>,
    /// The padding token.
    pub pad: u32,
}

/// A tokenizer; cheap to clone and usable from any number of threads.
#[derive(Clone)]
pub struct Tokenizer {
    name: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Tiktoken(&'static Encoding),
    Bytes,
    HuggingFace(Arc<HuggingFace>),
}

impl Tokenizer {
    /// Loads the tokenizer named in an experiment.
    ///
    /// # Errors
    /// If the name is unknown or the file unreadable; [`TokenizerError::NotTrained`] for `{ train = N }`, which is
    /// created by [`Tokenizer::train`] and then loaded by [`Tokenizer::from_file`].
    pub fn load(choice: &TokenizerChoice) -> Result<Self, TokenizerError> {
        if let Some(path) = choice.path() {
            return Self::from_file(&path);
        }
        match choice {
            TokenizerChoice::Named(name) => Self::named(name),
            TokenizerChoice::Train(_) => Err(TokenizerError::NotTrained),
        }
    }

    fn named(name: &str) -> Result<Self, TokenizerError> {
        let kind = match (name, tiktoken::find(name)) {
            (_, Some(encoding)) => Kind::Tiktoken(encoding),
            ("bytes", _) => Kind::Bytes,
            _ => return Err(TokenizerError::Unknown { name: name.into() }),
        };
        Ok(Self { name: name.into(), kind })
    }

    /// Loads a Hugging Face `tokenizer.json`. Its end-of-text token is the one with a well-known name, or else the
    /// `eos_token` of the `tokenizer_config.json` next to it.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let kind = Kind::HuggingFace(Arc::new(HuggingFace::read(path)?));
        Ok(Self { name: "tokenizer.json".into(), kind })
    }

    /// Trains a byte-pair tokenizer with exactly `entries` tokens (at least 257) on the first 64 MiB of `documents`:
    /// the 256 bytes, merged pairs, and end-of-text last. The same text gives the same vocabulary.
    ///
    /// # Errors
    /// Errors of reading a document, or of `keep_going`, which is called before each; [`TokenizerError::TooFewEntries`]
    /// if the text has too few distinct pairs.
    pub fn train(
        documents: impl Iterator<Item = anyhow::Result<Document>> + Send,
        entries: u32,
        keep_going: &(dyn Fn() -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<Self> {
        let trained = training::train(documents, entries.max(bytes::VOCAB_SIZE), keep_going)?;
        Ok(Self { name: "tokenizer.json".into(), kind: Kind::HuggingFace(Arc::new(trained)) })
    }

    /// Vocabulary size and digest of a choice, without loading the large tables.
    pub fn facts(choice: &TokenizerChoice) -> Result<TokenizerInfo, TokenizerError> {
        match choice {
            TokenizerChoice::Train(train) => {
                Ok(TokenizerInfo { vocab_size: i64::from(train.train), digest: None })
            }
            TokenizerChoice::Named(_) => {
                let tokenizer = Self::load(choice)?;
                Ok(TokenizerInfo { vocab_size: tokenizer.vocab_size(), digest: Some(tokenizer.digest()) })
            }
        }
    }

    /// The name of a built-in encoding, or `tokenizer.json`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tokens of `text`. Strings of special tokens are ordinary text, and no tokens are added.
    ///
    /// # Errors
    /// Only for an external `tokenizer.json`: [`TokenizerError::TooLong`], or if its rules reject the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.kind {
            Kind::Tiktoken(encoding) => encoding.encode(text),
            Kind::Bytes => Ok(bytes::encode(text)),
            Kind::HuggingFace(tokenizer) => tokenizer.encode(text),
        }
    }

    /// The text of `tokens`, with special tokens spelled out. Invalid UTF-8, such as the first half of a character,
    /// becomes U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let join = |token_bytes: &dyn Fn(u32) -> Option<Vec<u8>>| {
            let bytes = tokens.iter().flat_map(|&id| token_bytes(id).unwrap_or_else(|| "\u{fffd}".into()));
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        };
        match &self.kind {
            Kind::Tiktoken(encoding) => join(&|id| encoding.token_bytes(id)),
            Kind::Bytes => join(&bytes::token_bytes),
            Kind::HuggingFace(tokenizer) => tokenizer.decode(tokens),
        }
    }

    /// One more than the largest token ID.
    pub fn vocab_size(&self) -> i64 {
        i64::from(match &self.kind {
            Kind::Tiktoken(encoding) => encoding.vocab_size,
            Kind::Bytes => bytes::VOCAB_SIZE,
            Kind::HuggingFace(tokenizer) => tokenizer.vocab_size,
        })
    }

    /// The token that ends every document.
    pub fn end_of_text(&self) -> u32 {
        match &self.kind {
            Kind::Tiktoken(encoding) => encoding.end_of_text,
            Kind::Bytes => bytes::END_OF_TEXT,
            Kind::HuggingFace(tokenizer) => tokenizer.end_of_text,
        }
    }

    /// The ID of a special token such as `<|return|>`.
    pub fn special_id(&self, content: &str) -> Option<u32> {
        match &self.kind {
            Kind::Tiktoken(encoding) => encoding.special_id(content),
            Kind::Bytes => (content == END_OF_TEXT).then_some(bytes::END_OF_TEXT),
            Kind::HuggingFace(tokenizer) => tokenizer.special_id(content),
        }
    }

    /// BLAKE3 hash, in hexadecimal, of what defines the tokens: the published tables, or the file.
    pub fn digest(&self) -> String {
        match &self.kind {
            Kind::Tiktoken(encoding) => encoding.digest.into(),
            Kind::Bytes => blake3::hash(b"bytes, end-of-text 256").to_hex().to_string(),
            Kind::HuggingFace(tokenizer) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(tokenizer.json.as_bytes()).update(&tokenizer.end_of_text.to_le_bytes());
                hasher.finalize().to_hex().to_string()
            }
        }
    }

    /// IDs for `generation_config.json` and `config.json`.
    pub fn special_ids(&self) -> SpecialIds {
        let pad = self.end_of_text();
        let begin = self.special_id("<|startoftext|>");
        let end = match (self.special_id("<|return|>"), self.special_id("<|call|>")) {
            (Some(end_of_turn), Some(call)) => vec![end_of_turn, pad, call],
            _ => vec![pad],
        };
        SpecialIds { begin, end, pad }
    }

    /// A `tokenizer.json` that encodes text without special tokens exactly as this tokenizer does.
    pub fn hugging_face_json(&self) -> String {
        let described = match &self.kind {
            Kind::Tiktoken(encoding) => encoding.hugging_face(),
            Kind::Bytes => bytes::hugging_face(),
            Kind::HuggingFace(tokenizer) => return tokenizer.json.clone(),
        };
        described.to_string()
    }

    /// The matching `tokenizer_config.json`; `longest` is the model's maximum number of positions.
    pub fn tokenizer_config(&self, longest: i64) -> Value {
        let ids = self.special_ids();
        let spelling = |id: u32| match &self.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.spelling(id),
            _ => Some(self.decode(&[id])),
        };
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": longest,
            "clean_up_tokenization_spaces": false,
            "model_input_names": ["input_ids", "attention_mask"],
            "eos_token": ids.end.first().copied().and_then(spelling),
            "pad_token": spelling(ids.pad),
        });
        if let Some(begin) = ids.begin {
            config["bos_token"] = json!(spelling(begin));
        }
        config
    }
}

/// Names that need no file.
fn known_names() -> Vec<&'static str> {
    tiktoken::ENCODINGS.iter().map(|encoding| encoding.name).chain(["bytes"]).collect()
}

#[cfg(test)]
mod tests;
