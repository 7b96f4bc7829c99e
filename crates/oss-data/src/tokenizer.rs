//! Converts text to tokens and back, and exports tokenizers to Hugging Face.

mod as_trained;
mod byte_level;
mod bytes;
mod difference;
mod divisible;
mod end_of_text;
mod error;
mod hub;
mod hugging_face;
mod o200k;
mod segments;
mod tiktoken;
mod training;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

pub use self::difference::Difference;
pub use self::end_of_text::{EndOfText, EndOfTextReason};
pub use self::error::TokenizerError;
use self::hugging_face::HuggingFace;
use self::tiktoken::Encoding;
use super::Document;
use super::sources::{Watch, hub::Pinned};
use oss_config::{TokenizerChoice, TrainTokenizer};

/// The end-of-text token of every vocabulary except external ones.
const END_OF_TEXT: &str = "<|endoftext|>";

/// What a plan needs to know about a tokenizer without loading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerInfo {
    /// One more than the largest token ID.
    pub vocab_size: i64,
    /// Digest of its definition; `None` for a tokenizer that is not trained yet.
    pub digest: Option<String>,
    /// The token that ends every document, and why.
    pub end_of_text: EndOfText,
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
    end_of_text: EndOfText,
}

#[derive(Clone)]
enum Kind {
    Tiktoken(&'static Encoding),
    Bytes,
    HuggingFace(Arc<HuggingFace>),
}

impl Tokenizer {
    /// Loads the tokenizer named in an experiment; `end_of_text` is its `dataset.end_of_text`.
    ///
    /// # Errors
    /// If the name is unknown or the file unreadable, or it has no end-of-text token; [`TokenizerError::NotTrained`] for
    /// `{ train = N }`, which is created by [`Tokenizer::train`] and then loaded by [`Tokenizer::from_file`];
    /// [`TokenizerError::NotDownloaded`] for a model on the Hub unless [`Tokenizer::download`] was called for this commit.
    pub fn load(choice: &TokenizerChoice, end_of_text: Option<&str>) -> Result<Self, TokenizerError> {
        if let Some(path) = choice.path() {
            return Self::from_file(&path, end_of_text);
        }
        if let Some((repo, revision)) = choice.hub() {
            return Self::from_file(&hub::downloaded(repo, revision)?, end_of_text);
        }
        match choice {
            TokenizerChoice::Named(name) => Self::named(name, end_of_text),
            TokenizerChoice::Train(_) => Err(TokenizerError::NotTrained),
        }
    }

    fn named(name: &str, end_of_text: Option<&str>) -> Result<Self, TokenizerError> {
        let kind = match (name, tiktoken::find(name)) {
            (_, Some(encoding)) => Kind::Tiktoken(encoding),
            ("bytes", _) => Kind::Bytes,
            _ => return Err(TokenizerError::Unknown { name: name.into() }),
        };
        let usual = EndOfText {
            token: END_OF_TEXT.into(),
            id: kind.usual_end_of_text(),
            reason: EndOfTextReason::BuiltIn,
        };
        let tokenizer = Self { name: name.into(), kind, end_of_text: usual };
        let Some(token) = end_of_text else { return Ok(tokenizer) };
        match tokenizer.special_id(token) {
            Some(id) => Ok(tokenizer.with_end_of_text(id)),
            None => Err(TokenizerError::LacksEndOfText { token: token.into() }),
        }
    }

    /// Loads a Hugging Face `tokenizer.json`, or the one in a folder. Its end-of-text token is `end_of_text` if given;
    /// or else the `eos_token` of the `tokenizer_config.json` next to it, unless that ends a turn of a conversation; or
    /// else a special token with a well-known name.
    ///
    /// Truncation, padding, dropout and the tokens that its post-processor adds are turned off.
    pub fn from_file(path: &Path, end_of_text: Option<&str>) -> Result<Self, TokenizerError> {
        Ok(Self::external(HuggingFace::read(path, end_of_text)?))
    }

    /// Downloads the tokenizer of a model on the Hub into the cache, from which [`Self::load`] loads it.
    ///
    /// # Errors
    /// Those of [`Pinned::fetch`]; the model has no `tokenizer.json`.
    pub fn download(model: &Pinned, watch: Watch<'_>) -> anyhow::Result<()> {
        hub::download(model, watch)
    }

    fn external(tokenizer: HuggingFace) -> Self {
        let end_of_text = tokenizer.end_of_text.clone();
        Self { name: "tokenizer.json".into(), kind: Kind::HuggingFace(Arc::new(tokenizer)), end_of_text }
    }

    /// This tokenizer with the end-of-text token `id`.
    pub(super) fn with_end_of_text(mut self, id: u32) -> Self {
        if self.end_of_text.id != id {
            let token = self.spelling(id).unwrap_or_default();
            self.end_of_text = EndOfText { token, id, reason: EndOfTextReason::Set };
        }
        self
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
        Ok(Self::external(trained))
    }

    /// Vocabulary size, digest and end-of-text token of a choice, without loading the large tables; `end_of_text` is its
    /// `dataset.end_of_text`.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn facts(
        choice: &TokenizerChoice,
        end_of_text: Option<&str>,
    ) -> Result<TokenizerInfo, TokenizerError> {
        match choice {
            TokenizerChoice::Train(TrainTokenizer { train }) => {
                let id = train.saturating_sub(1);
                let token = END_OF_TEXT.into();
                let end_of_text = EndOfText { token, id, reason: EndOfTextReason::BuiltIn };
                Ok(TokenizerInfo { vocab_size: i64::from(*train), digest: None, end_of_text })
            }
            TokenizerChoice::Named(_) => {
                let tokenizer = Self::load(choice, end_of_text)?;
                Ok(TokenizerInfo {
                    vocab_size: tokenizer.vocab_size(),
                    digest: Some(tokenizer.digest()),
                    end_of_text: tokenizer.end_of_text,
                })
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

    /// The ID of the token that ends every document.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text.id
    }

    /// The token that ends every document, and why.
    pub fn end_of_text_token(&self) -> &EndOfText {
        &self.end_of_text
    }

    /// The ID of a special token such as `<|return|>`.
    pub fn special_id(&self, content: &str) -> Option<u32> {
        match &self.kind {
            Kind::Tiktoken(encoding) => encoding.special_id(content),
            Kind::Bytes => (content == END_OF_TEXT).then_some(bytes::END_OF_TEXT),
            Kind::HuggingFace(tokenizer) => tokenizer.special_id(content),
        }
    }

    /// BLAKE3 hash, in hexadecimal, of what defines the tokens: the published tables, or the file; and the end-of-text
    /// token.
    pub fn digest(&self) -> String {
        let end_of_text = self.end_of_text.id;
        let with_end = |definition: &str| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(definition.as_bytes()).update(&end_of_text.to_le_bytes());
            hasher.finalize().to_hex().to_string()
        };
        let table = match &self.kind {
            Kind::Tiktoken(encoding) => encoding.digest.into(),
            Kind::Bytes => blake3::hash(b"bytes, end-of-text 256").to_hex().to_string(),
            Kind::HuggingFace(tokenizer) => return with_end(&tokenizer.json),
        };
        match end_of_text == self.kind.usual_end_of_text() {
            true => table,
            false => with_end(&table),
        }
    }

    /// IDs for `generation_config.json` and `config.json`.
    pub fn special_ids(&self) -> SpecialIds {
        let pad = self.end_of_text();
        let begin = self.special_id("<|startoftext|>");
        let mut end = match (self.special_id("<|return|>"), self.special_id("<|call|>")) {
            (Some(end_of_turn), Some(call)) => vec![end_of_turn, pad, call],
            _ => vec![pad],
        };
        end.dedup();
        SpecialIds { begin, end, pad }
    }

    /// A `tokenizer.json` that encodes text without special tokens exactly as this tokenizer does.
    pub fn hugging_face_json(&self) -> String {
        let described = match &self.kind {
            Kind::Tiktoken(encoding) => encoding.hugging_face(),
            Kind::Bytes => bytes::hugging_face(),
            Kind::HuggingFace(tokenizer) => return tokenizer.as_trained().to_owned(),
        };
        described.to_string()
    }

    /// The `tokenizer.json` from which [`Self::from_file`] makes this tokenizer again: an external one byte for byte.
    pub fn stored_json(&self) -> String {
        match &self.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.json.clone(),
            _ => self.hugging_face_json(),
        }
    }

    fn spelling(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::HuggingFace(tokenizer) => tokenizer.spelling(id),
            _ => Some(self.decode(&[id])),
        }
    }

    /// The matching `tokenizer_config.json`; `longest` is the model's maximum number of positions.
    pub fn tokenizer_config(&self, longest: i64) -> Value {
        let ids = self.special_ids();
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": longest,
            "clean_up_tokenization_spaces": false,
            "model_input_names": ["input_ids", "attention_mask"],
            "eos_token": ids.end.first().and_then(|&id| self.spelling(id)),
            "pad_token": self.spelling(ids.pad),
        });
        if let Some(begin) = ids.begin {
            config["bos_token"] = json!(self.spelling(begin));
        }
        config
    }
}

impl Kind {
    /// The end-of-text token, unless an experiment sets another.
    fn usual_end_of_text(&self) -> u32 {
        match self {
            Self::Tiktoken(encoding) => encoding.end_of_text,
            Self::Bytes => bytes::END_OF_TEXT,
            Self::HuggingFace(tokenizer) => tokenizer.end_of_text.id,
        }
    }
}

/// Names that need no file.
fn known_names() -> Vec<&'static str> {
    tiktoken::ENCODINGS.iter().map(|encoding| encoding.name).chain(["bytes"]).collect()
}

#[cfg(test)]
mod tests;
