//! How sources are found and read.

use std::path::PathBuf;

use super::{CorpusRange, HubConfig};
use oss_config::Dataset;

/// Maximum size of a document, in bytes of text.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 20;

/// How sources are found and read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Field (JSONL) or column (Parquet) that contains the text.
    pub text_field: String,
    /// Line that separates documents in `.txt` files.
    pub separator: String,
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
            corpus: CorpusRange::TRAINING,
            digest_cache,
            hub: HubConfig::from_env(),
            max_document_bytes: MAX_DOCUMENT_BYTES,
        }
    }

    /// The same for validation text: a built-in corpus is smaller and has another seed.
    pub fn validation(dataset: &Dataset, digest_cache: Option<PathBuf>) -> Self {
        Self { corpus: CorpusRange::VALIDATION, ..Self::training(dataset, digest_cache) }
    }
}
