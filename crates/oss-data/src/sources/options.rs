//! How sources are found and read.

use std::path::PathBuf;

use super::{CorpusRange, HubConfig};
use oss_config::{Dataset, OnBadRow, TextKeys};

/// Maximum size of a document, in bytes of text.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 20;

/// How sources are found and read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Field (JSON) or column (Parquet, CSV) that contains the text.
    pub text_field: String,
    /// Separates documents in `.txt` files.
    pub separator: String,
    /// Whether to remove the outer white space of documents.
    pub trim: bool,
    /// What to do about rows that cannot be read.
    pub on_bad_row: OnBadRow,
    /// Largest fraction of rows to skip.
    pub max_bad_fraction: f64,
    /// The documents to generate, if the origin is a built-in corpus.
    pub corpus: CorpusRange,
    /// JSON file that caches the digests of local files; without it, they are hashed each time.
    pub digest_cache: Option<PathBuf>,
    /// The Hub, its token and its cache.
    pub hub: HubConfig,
    /// Maximum size of a document, in bytes of text.
    pub max_document_bytes: usize,
}

impl ReadOptions {
    /// The options in `[dataset]` for training text, with the Hub configured by the environment.
    pub fn training(dataset: &Dataset, digest_cache: Option<PathBuf>) -> Self {
        Self {
            text_field: dataset.text_field.clone(),
            separator: dataset.separator.clone(),
            trim: dataset.trim,
            on_bad_row: dataset.on_bad_row,
            max_bad_fraction: dataset.max_bad_fraction,
            corpus: CorpusRange::TRAINING,
            digest_cache,
            hub: HubConfig::from_env(),
            max_document_bytes: MAX_DOCUMENT_BYTES,
        }
    }

    /// The same for one source of the training text, which may have its own field and separator.
    pub fn source(dataset: &Dataset, name: &str, digest_cache: Option<PathBuf>) -> Self {
        let TextKeys { text_field, separator } = dataset.source_text_keys(name);
        Self {
            text_field: text_field.to_owned(),
            separator: separator.to_owned(),
            ..Self::training(dataset, digest_cache)
        }
    }

    /// The same for validation text: a built-in corpus is smaller and has another seed.
    pub fn validation(dataset: &Dataset, digest_cache: Option<PathBuf>) -> Self {
        let TextKeys { text_field, separator } = dataset.validation_text_keys();
        Self {
            text_field: text_field.to_owned(),
            separator: separator.to_owned(),
            corpus: CorpusRange::VALIDATION,
            ..Self::training(dataset, digest_cache)
        }
    }
}
