//! From an origin to files of known content, and to their documents.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::generated::Corpus;
use super::{Documents, Format, LocalFile, ReadOptions, Watch, hub, local};
use oss_config::Origin;
use oss_config::error::UserError;

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
        /// Seed of its documents.
        seed: u64,
        /// Number of documents.
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
    Generated(Corpus),
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
            Origin::Builtin(builtin) => Kind::Generated(Corpus { builtin: *builtin, range: options.corpus }),
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
            Kind::Generated(corpus) => Identity::Builtin {
                corpus: corpus.builtin.to_string(),
                version: corpus.version(),
                seed: corpus.range.seed,
                stories: corpus.range.documents,
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
            Kind::Generated(_) => Ok(Vec::new()),
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
            Kind::Generated(corpus) => Documents::generated(*corpus, &self.options),
            Kind::Local(files) => Documents::read(files.clone(), &self.options),
            Kind::Hub { .. } => {
                let files =
                    self.fetch(watch)?.iter().map(|path| LocalFile::unhashed(path)).collect::<Result<_>>()?;
                Documents::read(files, &self.options)
            }
        })
    }
}
