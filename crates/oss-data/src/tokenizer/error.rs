//! What can go wrong with a tokenizer.

use std::path::PathBuf;

use super::known_names;
use oss_config::error::{UserError, user_errors};

/// What is wrong with a tokenizer, or with text given to it.
#[derive(Debug)]
pub enum TokenizerError {
    /// There is no tokenizer of this name.
    Unknown {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file does not describe a tokenizer.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file beside the tokenizer cannot be read, or declares what the tokenizer lacks.
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The vocabulary has no known end-of-text token.
    NoEndOfText {
        /// The file.
        path: PathBuf,
    },
    /// The vocabulary does not have the end-of-text token that the experiment names.
    LacksEndOfText {
        /// The token.
        token: String,
    },
    /// The tokenizer of a model on the Hub is not in the cache.
    NotDownloaded {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// A model on the Hub has no `tokenizer.json`.
    NotInRepository {
        /// The repository.
        repo: String,
    },
    /// A tokenizer was requested before it was trained.
    NotTrained,
    /// The text has too few distinct pairs.
    TooFewEntries {
        /// Requested vocabulary size.
        wanted: u32,
        /// Vocabulary size that the text allows.
        found: u32,
    },
    /// A text is too long to be encoded in one go.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The maximum length.
        limit: usize,
    },
    /// An external tokenizer rejects a text.
    Encode {
        /// The tokenizer's error.
        reason: String,
    },
}

impl From<TokenizerError> for UserError {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::Unknown { name } => {
                Self::failed(format!("unknown tokenizer {name:?}")).hint(format!(
                    "set dataset.tokenizer to {}, {{ train = N }}, the path of a tokenizer.json or of a folder with \
                     one, or owner/name on the Hub",
                    known_names().join(", ")
                ))
            }
            TokenizerError::Read { path, source } => {
                Self::failed(format!("cannot read the tokenizer {}", path.display()))
                    .hint("set dataset.tokenizer to a tokenizer.json, or to a folder with one")
                    .because(source)
            }
            TokenizerError::Malformed { path, reason } => {
                Self::failed(format!("{} is not a usable tokenizer.json: {reason}", path.display()))
                    .hint("save it again with `tokenizers`, or choose another dataset.tokenizer")
            }
            TokenizerError::NoEndOfText { path } => Self::failed(format!(
                "{} has no known end-of-text token",
                path.display()
            ))
            .hint(
                "name it in dataset.end_of_text, or as \"eos_token\" in a tokenizer_config.json next to it",
            ),
            TokenizerError::Config { path, reason } => {
                Self::failed(format!("{} is not usable: {reason}", path.display()))
                    .hint("correct it, or set dataset.end_of_text")
            }
            TokenizerError::LacksEndOfText { token } => {
                Self::wrong(format!("the tokenizer has no token {token:?}"))
                    .hint("set dataset.end_of_text to one of its special tokens, or leave it out")
            }
            TokenizerError::NotDownloaded { repo, revision } => {
                Self::failed(format!("the tokenizer of {repo}@{revision} has not been downloaded yet"))
                    .hint("run `oss-run run EXPERIMENT.toml --until prepare`")
            }
            TokenizerError::NotInRepository { repo } => {
                Self::failed(format!("model {repo} has no tokenizer.json"))
                    .hint("save its tokenizer with transformers, and set dataset.tokenizer to that folder")
            }
            TokenizerError::NotTrained => {
                Self::failed("the tokenizer is trained by the prepare stage, which has not run yet")
                    .hint("run `oss-run run EXPERIMENT.toml --until prepare`")
            }
            TokenizerError::TooFewEntries { wanted, found } => Self::failed(format!(
                "the text has too few distinct pairs for a vocabulary of {wanted} tokens"
            ))
            .hint(format!("set dataset.tokenizer = {{ train = {found} }} or less, or add more text")),
            TokenizerError::TooLong { bytes, limit } => Self::failed(format!(
                "a text of {bytes} bytes exceeds the tokenizer's limit of {limit} bytes"
            ))
            .hint("split the document into shorter ones, or choose another dataset.tokenizer"),
            TokenizerError::Encode { reason } => Self::failed(format!("a text cannot be encoded: {reason}"))
                .hint("remove the document, or split it into shorter ones"),
        }
    }
}

user_errors!(TokenizerError);
