//! Text sources: generated corpora, local files and Hub repositories, all read as a stream of documents.
//!
//! [`SourceFiles::resolve`] turns an [`Origin`] into files with digests or a Hub commit without reading a document, so
//! that a plan's key is known early. [`SourceFiles::fetch`] downloads missing files, and [`SourceFiles::documents`]
//! streams. Any number of readers can stream the same source at the same time.

mod digests;
mod documents;
mod format;
pub mod hub;
mod jsonl;
mod lines;
mod local;
mod parquet;
mod text;

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

pub use digests::{DigestCache, digest_files};
pub use documents::Documents;
pub use format::Format;
pub use hub::HubConfig;
pub use local::LocalFile;

use crate::stories::{Corpus, TRAINING_SEED, VALIDATION_SEED, VALIDATION_STORIES};
use oss_config::error::UserError;
use oss_config::{Builtin, Dataset, Origin};

/// Maximum size of a document, in bytes of text.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 20;

/// How sources are found and read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Field (JSONL) or column (Parquet) that contains the text.
    pub text_field: String,
    /// Line that separates documents in `.txt` files.
    pub separator: String,
    /// The built-in corpus to generate, if the origin requests one.
    pub corpus: Corpus,
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
            corpus: Corpus::new(TRAINING_SEED),
            digest_cache,
            hub: HubConfig::from_env(),
            max_document_bytes: MAX_DOCUMENT_BYTES,
        }
    }

    /// The same for validation text: a built-in corpus is smaller and has another seed.
    pub fn validation(dataset: &Dataset, digest_cache: Option<PathBuf>) -> Self {
        let corpus = Corpus { stories: VALIDATION_STORIES, ..Corpus::new(VALIDATION_SEED) };
        Self { corpus, ..Self::training(dataset, digest_cache) }
    }
}

/// Callbacks of a long operation.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called between pieces of work; an error ends the operation and is returned unchanged.
    pub keep_going: &'a (dyn Fn() -> Result<()> + Sync),
    /// Called as the work progresses.
    pub progress: &'a (dyn Fn(Activity<'_>) + Sync),
}

impl Watch<'static> {
    /// Reports nothing and never stops.
    pub fn quiet() -> Self {
        Self { keep_going: &|| Ok(()), progress: &|_| () }
    }
}

/// Progress on one file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity<'a> {
    /// What is being done.
    pub kind: ActivityKind,
    /// The file.
    pub file: &'a str,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in total.
    pub total_bytes: u64,
}

/// What is being done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivityKind {
    /// Computing a digest.
    Hashing,
    /// Downloading.
    Downloading,
}

/// Identity of a source's content, for keys: sources with equal identities yield equal documents (given the same field
/// and separator), whatever their paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Identity {
    /// A generated corpus.
    Builtin {
        /// Name of the corpus.
        corpus: String,
        /// Version of its generator.
        version: u32,
        /// Seed of its stories.
        seed: u64,
        /// Number of stories.
        stories: u64,
    },
    /// Local files, in reading order.
    Files {
        /// Format and content of each file.
        files: Vec<FileIdentity>,
    },
    /// Files of a Hub repository.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Full commit.
        commit: String,
        /// Names in the repository, in reading order.
        files: Vec<String>,
    },
}

/// Content of one local file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// How the content is parsed.
    pub format: Format,
    /// BLAKE3 hash of the bytes, in hexadecimal.
    pub blake3: String,
}

/// A resolved source: a corpus, local files, or files of a commit.
#[derive(Clone, Debug)]
pub struct SourceFiles {
    kind: Kind,
    options: ReadOptions,
}

#[derive(Clone, Debug)]
enum Kind {
    Stories(Corpus),
    Local(Vec<LocalFile>),
    Hub { pinned: Box<hub::Pinned>, files: Vec<String> },
}

impl SourceFiles {
    /// Finds what `origin` names. Local patterns are expanded in order, with the matches of each sorted, and files are
    /// hashed unless their digest is cached. A Hub revision is resolved to its commit (one small request, unless it
    /// already is one).
    ///
    /// # Errors
    /// If a pattern matches nothing; a file is missing, empty, unreadable or unsupported; or the Hub does not respond
    /// or does not have the repository. Errors of `watch.keep_going`.
    pub fn resolve(origin: &Origin<'_>, options: &ReadOptions, watch: Watch<'_>) -> Result<Self> {
        if options.separator.contains(['\n', '\r']) {
            bail!(
                UserError::failed("dataset.separator contains a line break")
                    .hint("set dataset.separator to a single line, \"\" for an empty one")
            );
        }
        let kind = match origin {
            Origin::Builtin(Builtin::Stories) => Kind::Stories(options.corpus),
            Origin::Files(patterns) => {
                Kind::Local(local::resolve(patterns, options.digest_cache.as_deref(), watch)?)
            }
            Origin::Hub(wanted) => {
                hub::check_file_names(&wanted.files)?;
                let repo = hub::Repository::dataset(&wanted.repo, &wanted.revision)?;
                let hub = hub::Hub::new(options.hub.clone())?;
                let pinned = hub.pin(&repo, wanted.files.first().map(String::as_str), watch)?;
                let files = pinned.expand(&wanted.files, watch)?;
                for file in &files {
                    Format::of_path(file.as_ref())?;
                }
                Kind::Hub { pinned: Box::new(pinned), files }
            }
        };
        Ok(Self { kind, options: options.clone() })
    }

    /// Identity of the content, for keys.
    pub fn identity(&self) -> Identity {
        match &self.kind {
            Kind::Stories(corpus) => Identity::Builtin {
                corpus: "stories".into(),
                version: crate::stories::VERSION,
                seed: corpus.seed,
                stories: corpus.stories,
            },
            Kind::Local(files) => Identity::Files { files: files.iter().map(LocalFile::identity).collect() },
            Kind::Hub { pinned, files } => Identity::Hub {
                repo: pinned.repository().name().into(),
                commit: pinned.commit().into(),
                files: files.clone(),
            },
        }
    }

    /// Local files to read, in order; files on the Hub are downloaded first unless they are cached. A generated corpus
    /// has none.
    ///
    /// # Errors
    /// As for [`hub::Pinned::fetch`]; if a downloaded file is empty or unsupported.
    pub fn fetch(&self, watch: Watch<'_>) -> Result<Vec<PathBuf>> {
        match &self.kind {
            Kind::Stories(_) => Ok(Vec::new()),
            Kind::Local(files) => Ok(files.iter().map(|file| file.path().to_path_buf()).collect()),
            Kind::Hub { pinned, files } => files.iter().map(|file| pinned.fetch(file, watch)).collect(),
        }
    }

    /// Streams the documents, file after file; downloads missing files first.
    ///
    /// # Errors
    /// As for [`Self::fetch`]. For text that cannot be read, the iterator yields an error with the file and the line or
    /// row, and ends.
    pub fn documents(&self, watch: Watch<'_>) -> Result<Documents> {
        Ok(match &self.kind {
            Kind::Stories(corpus) => Documents::generated(*corpus),
            Kind::Local(files) => Documents::read(files.clone(), &self.options),
            Kind::Hub { .. } => {
                let files =
                    self.fetch(watch)?.iter().map(|path| LocalFile::unhashed(path)).collect::<Result<_>>()?;
                Documents::read(files, &self.options)
            }
        })
    }
}
