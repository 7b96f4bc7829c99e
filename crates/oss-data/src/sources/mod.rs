//! Where text comes from: generated corpora, local files and hub repositories, all read as a stream of documents.
//!
//! [`SourceFiles::resolve`] turns an [`Origin`] into something concrete (files with digests, a hub commit) without
//! reading a document, so that a plan's key is known early; [`SourceFiles::fetch`] downloads what is not here yet;
//! [`SourceFiles::documents`] streams. Any number of readers may stream the same source at the same time.

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

/// Longest document that is read, in bytes of text.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 20;

/// How sources are found and read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Field (jsonl) or column (parquet) that holds the text.
    pub text_field: String,
    /// Line that separates documents in `.txt` files.
    pub separator: String,
    /// The built-in corpus to generate, where the origin asks for one.
    pub corpus: Corpus,
    /// JSON file that remembers the digests of local files; without it they are hashed each time.
    pub digest_cache: Option<PathBuf>,
    /// The hub, its token and its cache.
    pub hub: HubConfig,
    /// Longest document accepted, in bytes of text.
    pub max_document_bytes: usize,
}

impl ReadOptions {
    /// What `[dataset]` says, for training text, with the hub as the environment describes it.
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

    /// The same for validation text: a built-in corpus is a smaller one with another seed.
    pub fn validation(dataset: &Dataset, digest_cache: Option<PathBuf>) -> Self {
        let corpus = Corpus { stories: VALIDATION_STORIES, ..Corpus::new(VALIDATION_SEED) };
        Self { corpus, ..Self::training(dataset, digest_cache) }
    }
}

/// What a long operation reports to and asks leave of.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called between pieces of work; its error ends the operation and is returned as it is.
    pub keep_going: &'a (dyn Fn() -> Result<()> + Sync),
    /// Called as the work goes on.
    pub progress: &'a (dyn Fn(Activity<'_>) + Sync),
}

impl Watch<'static> {
    /// Reports nothing and never stops.
    pub fn quiet() -> Self {
        Self { keep_going: &|| Ok(()), progress: &|_| () }
    }
}

/// A piece of progress, in bytes of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity<'a> {
    /// What is being done.
    pub kind: ActivityKind,
    /// The file it is done to.
    pub file: &'a str,
    /// Bytes behind us.
    pub done_bytes: u64,
    /// Bytes in all.
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

/// What a source's content is, for keys: equal identities read as equal documents (given the same field and
/// separator), whatever the paths.
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
        /// Number of its stories.
        stories: u64,
    },
    /// Local files, in reading order.
    Files {
        /// Each file's format and content.
        files: Vec<FileIdentity>,
    },
    /// Files of a hub repository.
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
    /// How the content is read.
    pub format: Format,
    /// BLAKE3 of the bytes, in hexadecimal.
    pub blake3: String,
}

/// A source made concrete: which corpus, which files, or which files of which commit.
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
    /// Finds what `origin` names. Local patterns are expanded in order, each one's matches sorted, and hashed unless
    /// remembered; a hub revision is resolved to its commit (one small request unless it is a commit already).
    ///
    /// # Errors
    /// A pattern that matches nothing, a missing, empty, unreadable or unsupported file; a hub that does not answer
    /// or does not know the repository; an error of `watch.keep_going`.
    pub fn resolve(origin: &Origin<'_>, options: &ReadOptions, watch: Watch<'_>) -> Result<Self> {
        if options.separator.contains(['\n', '\r']) {
            bail!(
                UserError::failed("dataset.separator holds a line break")
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

    /// What the content is, for keys.
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

    /// Local files to read, in order; a hub's are downloaded first unless they are in its cache. A generated corpus
    /// has none.
    ///
    /// # Errors
    /// As [`hub::Pinned::fetch`]; an empty or unsupported downloaded file.
    pub fn fetch(&self, watch: Watch<'_>) -> Result<Vec<PathBuf>> {
        match &self.kind {
            Kind::Stories(_) => Ok(Vec::new()),
            Kind::Local(files) => Ok(files.iter().map(|file| file.path().to_path_buf()).collect()),
            Kind::Hub { pinned, files } => files.iter().map(|file| pinned.fetch(file, watch)).collect(),
        }
    }

    /// Streams the documents, file after file; fetches first where needed.
    ///
    /// # Errors
    /// As [`Self::fetch`]. The iterator yields an error, naming file and line or row, for text that cannot be read,
    /// and then ends.
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
