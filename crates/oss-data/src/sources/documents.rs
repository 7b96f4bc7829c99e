//! The stream of documents of any source.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow};

use super::ReadOptions;
use super::format::Format;
use super::generated::Corpus;
use super::jsonl::JsonlDocuments;
use super::lines::Lines;
use super::local::LocalFile;
use super::parquet::ParquetDocuments;
use super::text::TextDocuments;
use crate::Document;
use oss_config::error::UserError;

/// The documents of a source, in order; ends after an error.
///
/// Memory is bounded by a few buffers and the longest document.
pub struct Documents {
    stream: Stream,
    bytes_read: Arc<AtomicU64>,
    total_bytes: u64,
}

enum Stream {
    Ended,
    Generated { corpus: Corpus, next: u64 },
    Read(Box<Files>),
}

struct Files {
    left: std::vec::IntoIter<LocalFile>,
    options: ReadOptions,
    current: Option<(LocalFile, OneFile)>,
    /// Whether the current file has contained a document.
    some: bool,
}

enum OneFile {
    Text(TextDocuments),
    Jsonl(JsonlDocuments),
    Parquet(Box<ParquetDocuments>),
}

impl Documents {
    /// The documents of a generated corpus.
    pub(super) fn generated(corpus: Corpus) -> Self {
        Self {
            stream: Stream::Generated { corpus, next: 0 },
            bytes_read: Arc::default(),
            total_bytes: corpus.approximate_bytes(),
        }
    }

    /// The documents of `files`, one file after the other.
    pub(super) fn read(files: Vec<LocalFile>, options: &ReadOptions) -> Self {
        let total_bytes = files.iter().map(LocalFile::bytes).sum();
        let left = files.into_iter();
        let files = Files { left, options: options.clone(), current: None, some: false };
        Self { stream: Stream::Read(Box::new(files)), bytes_read: Arc::default(), total_bytes }
    }

    /// Size of all files on disk (for a generated corpus, approximate size of its text).
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes read so far, in the same units as [`Self::total_bytes`]; the handle stays valid while another thread
    /// reads.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match &mut self.stream {
            Stream::Ended => Ok(None),
            Stream::Generated { corpus, next } => Ok(corpus.document(*next).inspect(|document| {
                self.bytes_read.fetch_add(document.text.len() as u64, Ordering::Relaxed);
                *next += 1;
            })),
            Stream::Read(files) => files.next(&self.bytes_read),
        };
        if !matches!(next, Ok(Some(_))) {
            self.stream = Stream::Ended;
        }
        next.transpose()
    }
}

impl Files {
    fn next(&mut self, bytes_read: &Arc<AtomicU64>) -> Result<Option<Document>> {
        loop {
            if let Some((file, reader)) = &mut self.current {
                let document = match reader {
                    OneFile::Text(reader) => reader.next(),
                    OneFile::Jsonl(reader) => reader.next(),
                    OneFile::Parquet(reader) => reader.next(),
                }?;
                if document.is_some() {
                    self.some = true;
                    return Ok(document);
                }
                file.check_unchanged()?;
                if !self.some {
                    let path = file.path().display();
                    return Err(anyhow!(
                        UserError::failed(format!("{path}: the file has no documents"))
                            .hint("remove it from dataset.files")
                    ));
                }
            }
            self.some = false;
            self.current = match self.left.next() {
                Some(file) => {
                    file.check_unchanged()?;
                    let reader = open(file.path(), file.format(), &self.options, bytes_read)?;
                    Some((file, reader))
                }
                None => return Ok(None),
            };
        }
    }
}

fn open(path: &Path, format: Format, options: &ReadOptions, bytes_read: &Arc<AtomicU64>) -> Result<OneFile> {
    let limit = options.max_document_bytes;
    Ok(match format {
        Format::Text(compression) => {
            let lines = Lines::open(path, compression, limit, Arc::clone(bytes_read))?;
            OneFile::Text(TextDocuments::new(path, lines, &options.separator, limit))
        }
        Format::Jsonl(compression) => {
            // A line contains its document in escaped form next to other fields, so it may be longer.
            let lines = Lines::open(path, compression, limit.saturating_mul(2), Arc::clone(bytes_read))?;
            OneFile::Jsonl(JsonlDocuments::new(path, lines, &options.text_field, limit))
        }
        Format::Parquet => {
            let documents = ParquetDocuments::open(path, &options.text_field, limit, Arc::clone(bytes_read))?;
            OneFile::Parquet(Box::new(documents))
        }
    })
}
