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
    /// The vocabulary has no known end-of-text token.
    NoEndOfText {
        /// The file.
        path: PathBuf,
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
                    "set dataset.tokenizer to {}, {{ train = N }} or the path of a tokenizer.json",
                    known_names().join(", ")
                ))
            }
            TokenizerError::Read { path, source } => {
                Self::failed(format!("cannot read the tokenizer {}", path.display()))
                    .hint("set dataset.tokenizer to a tokenizer.json")
                    .because(source)
            }
            TokenizerError::Malformed { path, reason } => {
                Self::failed(format!("{} is not a usable tokenizer.json: {reason}", path.display()))
                    .hint("save it again with `tokenizers`, or choose another dataset.tokenizer")
            }
            TokenizerError::NoEndOfText { path } => {
                Self::failed(format!("{} has no known end-of-text token", path.display()))
                    .hint("name it as \"eos_token\" in a tokenizer_config.json next to it")
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
            .hint("split it into shorter documents: rows, or in a .txt file by dataset.separator"),
            TokenizerError::Encode { reason } => Self::failed(format!("a text cannot be encoded: {reason}"))
                .hint("remove it, or split it into shorter documents"),
        }
    }
}

user_errors!(TokenizerError);
