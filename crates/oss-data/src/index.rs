//! The contents of a directory of prepared tokens, and how damage is detected.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::token_file::TokenFile;
use super::tokenizer::Tokenizer;
use oss_config::TokenizerChoice;
use oss_config::error::{UserError, user_errors};
use oss_runs::storage;

/// Version of the layout of a prepared directory.
const FORMAT: u32 = 1;

pub(super) const INDEX: &str = "index.json";
pub(super) const TRAIN: &str = "train.bin";
pub(super) const VALIDATION: &str = "val.bin";
pub(super) const TRAIN_DOCUMENTS: &str = "train.documents.bin";
pub(super) const VALIDATION_DOCUMENTS: &str = "val.documents.bin";
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// What is wrong with prepared tokens.
#[derive(Debug)]
pub enum PreparedError {
    /// There is no index.
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The index was written by another version of the program.
    Format {
        /// The index.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file is not what was written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it differs.
        reason: String,
    },
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<PreparedError> for UserError {
    fn from(error: PreparedError) -> Self {
        match error {
            PreparedError::Missing { dir } => Self::failed(format!("no prepared data in {}", dir.display()))
                .hint("run `oss-run run EXPERIMENT.toml --until prepare`"),
            PreparedError::Format { path, found } => Self::failed(format!(
                "{} has format {found}, but this program reads format {FORMAT}",
                path.display()
            ))
            .hint("rerun with `--force prepare`"),
            PreparedError::Damaged { path, reason } => {
                Self::failed(format!("{} is damaged: {reason}", path.display()))
                    .hint("delete its directory, or rerun with `--force prepare`")
            }
            PreparedError::Read { path, source } => Self::failed(format!("cannot read {}", path.display()))
                .hint("rerun with `--force prepare`")
                .because(source),
        }
    }
}

user_errors!(PreparedError);

fn damaged(path: &Path, reason: impl Into<String>) -> PreparedError {
    PreparedError::Damaged { path: path.into(), reason: reason.into() }
}

/// One side of the split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of nonempty documents.
    pub documents: u64,
    /// Number of tokens, including the end-of-text after each document.
    pub tokens: u64,
    /// Size of the documents in UTF-8 bytes, for losses per byte.
    pub text_bytes: u64,
    /// BLAKE3 hash of the token file, in hexadecimal.
    pub digest: String,
}

/// What was left out of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Number of rows that could not be read, with `dataset.on_bad_row = "skip"`.
    pub bad_rows: u64,
    /// Number of documents of only white space.
    pub blank_documents: u64,
}

impl Skipped {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The tokenizer that produced the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerRecord {
    /// The name of a built-in tokenizer, or `tokenizer.json`, which is then stored next to the tokens.
    pub name: String,
    /// [`Tokenizer::digest`].
    pub digest: String,
    /// One more than its largest ID.
    pub vocab_size: i64,
    /// The ID that ends every document.
    pub end_of_text: u32,
}

/// `index.json`: what was prepared, from what, with which digests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Version of the layout.
    pub format: u32,
    /// Description of the text.
    pub source: String,
    /// The tokenizer.
    pub tokenizer: TokenizerRecord,
    /// Fraction of the documents that was held out.
    pub validation_share: f64,
    /// `train.bin`.
    pub train: Part,
    /// `val.bin`.
    pub validation: Part,
    /// What was left out.
    #[serde(default, skip_serializing_if = "Skipped::is_nothing")]
    pub skipped: Skipped,
    /// BLAKE3 hash of this file with an empty checksum.
    checksum: String,
}

impl Part {
    /// Average number of bytes of text per token; converts loss per token to loss per byte.
    pub fn bytes_per_token(&self) -> f64 {
        self.text_bytes as f64 / self.tokens.max(1) as f64
    }
}

impl Index {
    pub(super) fn new(
        source: String,
        tokenizer: &Tokenizer,
        validation_share: f64,
        parts: [Part; 2],
        skipped: Skipped,
    ) -> Self {
        let [train, validation] = parts;
        let tokenizer = TokenizerRecord {
            name: tokenizer.name().into(),
            digest: tokenizer.digest(),
            vocab_size: tokenizer.vocab_size(),
            end_of_text: tokenizer.end_of_text(),
        };
        let checksum = String::new();
        let mut index = Self {
            format: FORMAT,
            source,
            tokenizer,
            validation_share,
            train,
            validation,
            skipped,
            checksum,
        };
        index.checksum = index.digest();
        index
    }

    fn digest(&self) -> String {
        let unsigned = Self { checksum: String::new(), ..self.clone() };
        // Plain structs of numbers and strings always serialize.
        let text = serde_json::to_string(&unsigned).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Loads and checks `index.json` in `dir`.
    pub fn read(dir: &Path) -> Result<Self, PreparedError> {
        let path = dir.join(INDEX);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PreparedError::Missing { dir: dir.into() });
            }
            Err(source) => return Err(PreparedError::Read { path, source }),
        };
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| damaged(&path, error.to_string()))?;
        match value["format"].as_u64().map(u32::try_from) {
            Some(Ok(FORMAT)) => {}
            Some(Ok(found)) => return Err(PreparedError::Format { path, found }),
            _ => return Err(damaged(&path, "it has no format")),
        }
        let index: Self = serde_json::from_value(value).map_err(|error| damaged(&path, error.to_string()))?;
        if index.checksum != index.digest() {
            return Err(damaged(&path, "its checksum does not match"));
        }
        Ok(index)
    }
}

/// A directory of prepared tokens: `train.bin`, `val.bin`, digests of the documents in each, `index.json`, and
/// `tokenizer.json` if the tokenizer is not built in.
#[derive(Clone, Debug)]
pub struct Prepared {
    dir: PathBuf,
    index: Index,
}

impl Prepared {
    /// Opens `dir` and checks its index and the lengths of its files; see [`Prepared::verify`] for their contents.
    ///
    /// # Errors
    /// [`PreparedError::Missing`] if nothing was prepared; otherwise the file that is wrong, with a hint.
    pub fn open(dir: &Path) -> Result<Self, PreparedError> {
        let dir = storage::current(dir);
        let prepared = Self { index: Index::read(&dir)?, dir };
        for (path, part) in prepared.parts() {
            let written = part.tokens * size_of::<u32>() as u64;
            match std::fs::metadata(&path) {
                Ok(found) if found.len() == written => {}
                Ok(found) => {
                    let reason = format!("it has {} bytes instead of {written}", found.len());
                    return Err(damaged(&path, reason));
                }
                Err(source) => return Err(PreparedError::Read { path, source }),
            }
        }
        Ok(prepared)
    }

    /// Reads all tokens and compares their digests with the index. The files are streamed, not mapped, so memory use
    /// stays constant.
    ///
    /// # Errors
    /// [`PreparedError::Damaged`] with the damaged file.
    pub fn verify(&self) -> Result<(), PreparedError> {
        for (path, part) in self.parts() {
            let mut hasher = blake3::Hasher::new();
            let read = File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
            if let Err(source) = read {
                return Err(PreparedError::Read { path, source });
            }
            if hasher.finalize().to_hex().as_str() != part.digest {
                return Err(damaged(&path, "its digest does not match index.json"));
            }
        }
        Ok(())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The training tokens.
    ///
    /// # Errors
    /// If the file cannot be mapped.
    pub fn train(&self) -> Result<TokenFile> {
        TokenFile::open(&self.dir.join(TRAIN), self.index.train.tokens)
    }

    /// The validation tokens.
    ///
    /// # Errors
    /// If the file cannot be mapped.
    pub fn val(&self) -> Result<TokenFile> {
        TokenFile::open(&self.dir.join(VALIDATION), self.index.validation.tokens)
    }

    /// Checks that the training tokens fill at least one window of `sequence_length` predictions.
    ///
    /// # Errors
    /// If they do not; the error says how many tokens there are and which values to change.
    pub fn require_training(&self, sequence_length: usize) -> Result<()> {
        let Index { source, train, .. } = &self.index;
        require_window("training", source, train.tokens, sequence_length, "add more text to the source")
    }

    /// Checks that the validation tokens fill at least one window of `sequence_length` predictions.
    ///
    /// # Errors
    /// If they do not; the error says how many tokens there are and which values to change.
    pub fn require_validation(&self, sequence_length: usize) -> Result<()> {
        let Index { source, train, validation, validation_share, .. } = &self.index;
        let fix = if *validation_share < 1.0 {
            // Documents are held out whole, so both are lower bounds: of the tokens, and of what this fraction gave.
            let window = (sequence_length + 1) as f64;
            let of_all = window / (train.tokens + validation.tokens) as f64;
            let wanted = of_all.max(validation_share * window / validation.tokens.max(1) as f64);
            match (wanted * 100.0).ceil() / 100.0 {
                fraction if fraction <= 0.5 => {
                    format!("raise dataset.validation.fraction to at least {fraction}, or add more text")
                }
                _ => "add more text, or separate validation text under [dataset.validation]".to_owned(),
            }
        } else {
            "add more validation text".to_owned()
        };
        require_window("validation", source, validation.tokens, sequence_length, &fix)
    }

    /// The tokenizer that produced these tokens.
    ///
    /// # Errors
    /// If its file is missing, or is not the one recorded in the index.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let recorded = &self.index.tokenizer;
        let path = self.dir.join(TOKENIZER);
        let tokenizer = if recorded.name == TOKENIZER {
            Tokenizer::from_file(&path, None)?
        } else {
            Tokenizer::load(&TokenizerChoice::Named(recorded.name.clone()), None)?
        };
        let tokenizer = tokenizer.with_end_of_text(recorded.end_of_text);
        if tokenizer.digest() != recorded.digest {
            let reason = format!("{} is not the tokenizer that produced the tokens", recorded.name);
            return Err(damaged(&path, reason).into());
        }
        Ok(tokenizer)
    }

    fn parts(&self) -> [(PathBuf, &Part); 2] {
        [(self.dir.join(TRAIN), &self.index.train), (self.dir.join(VALIDATION), &self.index.validation)]
    }
}

fn require_window(what: &str, source: &str, tokens: u64, sequence_length: usize, fix: &str) -> Result<()> {
    let shorter = match tokens {
        0..=2 => String::new(),
        tokens => format!(", or lower train.sequence_length to {} or less", tokens - 1),
    };
    ensure!(
        tokens > sequence_length as u64,
        UserError::failed(format!(
            "the {what} text of {source} has {tokens} tokens, fewer than one window of \
             train.sequence_length + 1 = {}",
            sequence_length + 1
        ))
        .hint(format!("{fix}{shorter}"))
    );
    Ok(())
}
