//! The stream of documents of any source.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow};

use super::ReadOptions;
use super::bad_rows::{BadRows, ReadError};
use super::delimited::DelimitedDocuments;
use super::format::Format;
use super::generated::Corpus;
use super::input::Input;
use super::json::JsonDocuments;
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
    trim: bool,
    bad_rows: Arc<BadRows>,
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
    /// Whether the current file has contained a document, good or bad.
    some: bool,
    bad_rows: Arc<BadRows>,
}

enum OneFile {
    Text(Box<TextDocuments>),
    Jsonl(JsonlDocuments),
    Json(JsonDocuments),
    Delimited(Box<DelimitedDocuments>),
    Parquet(Box<ParquetDocuments>),
}

impl Documents {
    /// The documents of a generated corpus.
    pub(super) fn generated(corpus: Corpus, options: &ReadOptions) -> Self {
        Self {
            stream: Stream::Generated { corpus, next: 0 },
            trim: options.trim,
            bad_rows: Arc::default(),
            bytes_read: Arc::default(),
            total_bytes: corpus.approximate_bytes(),
        }
    }

    /// The documents of `files`, one file after the other.
    pub(super) fn read(files: Vec<LocalFile>, options: &ReadOptions) -> Self {
        let total_bytes = files.iter().map(LocalFile::bytes).sum();
        let bad_rows = Arc::new(BadRows::new(options.on_bad_row, options.max_bad_fraction));
        let files = Files {
            left: files.into_iter(),
            options: options.clone(),
            current: None,
            some: false,
            bad_rows: Arc::clone(&bad_rows),
        };
        Self {
            stream: Stream::Read(Box::new(files)),
            trim: options.trim,
            bad_rows,
            bytes_read: Arc::default(),
            total_bytes,
        }
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

    /// The bad rows so far; the handle stays valid while another thread reads.
    pub fn bad_rows(&self) -> Arc<BadRows> {
        Arc::clone(&self.bad_rows)
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next = match &mut self.stream {
            Stream::Ended => Ok(None),
            Stream::Generated { corpus, next } => Ok(corpus.document(*next).inspect(|document| {
                self.bytes_read.fetch_add(document.text.len() as u64, Ordering::Relaxed);
                *next += 1;
            })),
            Stream::Read(files) => files.next(&self.bytes_read),
        };
        match &mut next {
            Ok(Some(document)) if self.trim => trim(&mut document.text),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => self.stream = Stream::Ended,
        }
        next.transpose()
    }
}

impl Files {
    fn next(&mut self, bytes_read: &Arc<AtomicU64>) -> Result<Option<Document>> {
        loop {
            if let Some((file, reader)) = &mut self.current {
                let next = match reader {
                    OneFile::Text(reader) => reader.next(),
                    OneFile::Jsonl(reader) => reader.next(),
                    OneFile::Json(reader) => reader.next(),
                    OneFile::Delimited(reader) => reader.next(),
                    OneFile::Parquet(reader) => reader.next(),
                };
                if !matches!(next, Ok(None) | Err(ReadError::File(_))) {
                    self.some = true;
                    self.bad_rows.count_row();
                }
                match next {
                    Ok(Some(document)) => return Ok(Some(document)),
                    Ok(None) => {}
                    Err(ReadError::Row(error)) => {
                        self.bad_rows.skip(error)?;
                        continue;
                    }
                    Err(ReadError::File(error)) => return Err(error),
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
                None => {
                    self.bad_rows.check()?;
                    return Ok(None);
                }
            };
        }
    }
}

fn open(path: &Path, format: Format, options: &ReadOptions, bytes_read: &Arc<AtomicU64>) -> Result<OneFile> {
    let ReadOptions { text_field: field, max_document_bytes: limit, .. } = options;
    let limit = *limit;
    let input = |compression| Input::open(path, compression, Arc::clone(bytes_read));
    Ok(match format {
        Format::Text(compression) => {
            let lines = Lines::new(input(compression)?, limit);
            OneFile::Text(Box::new(TextDocuments::new(path, lines, &options.separator, limit)))
        }
        Format::Jsonl(compression) => {
            // A line contains its document in escaped form next to other fields, so it may be longer.
            let lines = Lines::new(input(compression)?, limit.saturating_mul(2));
            OneFile::Jsonl(JsonlDocuments::new(path, lines, field, limit))
        }
        Format::Json(compression) => OneFile::Json(JsonDocuments::new(input(compression)?, field, limit)),
        Format::Csv(compression) => {
            let input = input(compression)?;
            OneFile::Delimited(Box::new(DelimitedDocuments::open(path, input, b',', field, limit)?))
        }
        Format::Tsv(compression) => {
            let input = input(compression)?;
            OneFile::Delimited(Box::new(DelimitedDocuments::open(path, input, b'\t', field, limit)?))
        }
        Format::Parquet => {
            let documents = ParquetDocuments::open(path, field, limit, Arc::clone(bytes_read))?;
            OneFile::Parquet(Box::new(documents))
        }
    })
}

/// Removes the outer white space of `text`, in place.
fn trim(text: &mut String) {
    text.truncate(text.trim_end().len());
    text.drain(..text.len() - text.trim_start().len());
}
