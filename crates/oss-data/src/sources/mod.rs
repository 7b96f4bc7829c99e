//! Text sources: generated corpora, local files and Hub repositories, all read as a stream of documents.
//!
//! [`SourceFiles::resolve`] turns an [`Origin`](oss_config::Origin) into files with digests or a Hub commit without
//! reading a document, so that a plan's key is known early. [`SourceFiles::fetch`] downloads missing files, and
//! [`SourceFiles::documents`] streams. Any number of readers can stream the same source at the same time.

mod bad_rows;
mod delimited;
mod digests;
mod documents;
mod folder;
mod format;
mod generated;
pub mod hub;
mod input;
mod json;
mod json_field;
mod jsonl;
mod lines;
mod local;
mod options;
mod parquet;
mod source_files;
mod stamp;
mod text;
mod watch;

pub use bad_rows::BadRows;
pub use digests::{DigestCache, digest_files};
pub use documents::Documents;
pub use format::Format;
pub(crate) use generated::Generator;
pub use generated::{Corpus, CorpusRange};
pub use hub::HubConfig;
pub use local::LocalFile;
pub use options::{MAX_DOCUMENT_BYTES, ReadOptions};
pub use source_files::{FileIdentity, Identity, SourceFiles};
pub use watch::{Activity, ActivityKind, Watch};
