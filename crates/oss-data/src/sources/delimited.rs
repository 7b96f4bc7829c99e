//! CSV and TSV: a header with the names of the columns, then one document per row.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use oss_config::error::UserError;

use super::bad_rows::ReadError;
use super::input::{Input, place};
use super::jsonl::within_limit;
use crate::Document;

/// The documents in one column of a CSV or TSV file.
pub struct DelimitedDocuments {
    path: PathBuf,
    reader: Reader<Limited>,
    column: usize,
    record: ByteRecord,
    max_document_bytes: usize,
}

impl DelimitedDocuments {
    /// Reads the column `column` of `input`, whose values are separated by `delimiter`.
    ///
    /// # Errors
    /// If the header cannot be read or has no such column (the message lists the existing ones).
    pub fn open(
        path: &Path,
        input: Input,
        delimiter: u8,
        column: &str,
        max_document_bytes: usize,
    ) -> anyhow::Result<Self> {
        // A row contains its document in quoted form next to other columns, so it may be longer.
        let limit = max_document_bytes.saturating_mul(2) as u64;
        let input = Limited { input, limit, left: limit };
        let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(input);
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(damaged(&reader, path, error)),
        };
        let Some(index) = header.iter().position(|name| name == column.as_bytes()) else {
            let names: Vec<_> = header.iter().map(String::from_utf8_lossy).collect();
            return Err(anyhow!(
                UserError::failed(format!(
                    "{}: no column `{column}` (found: {})",
                    path.display(),
                    names.join(", ")
                ))
                .hint("set dataset.text_field to the one with the text; the first line names the columns")
            ));
        };
        Ok(Self { path: path.into(), reader, column: index, record: ByteRecord::new(), max_document_bytes })
    }

    /// The text of the next row; `None` after the last row.
    ///
    /// # Errors
    /// Read errors. A row with another number of values than the header, or whose text is not UTF-8 or exceeds the
    /// limit, is a bad row.
    pub fn next(&mut self) -> Result<Option<Document>, ReadError> {
        let limited = self.reader.get_mut();
        limited.left = limited.limit;
        let read = self.reader.read_byte_record(&mut self.record);
        let line = self.record.position().map_or(1, csv::Position::line);
        let place = place(&self.path, line);
        match read {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                return Err(match error.kind() {
                    ErrorKind::UnequalLengths { expected_len, len, .. } => ReadError::Row(
                        UserError::failed(format!(
                            "{place}: the row has {len} values, but the header has {expected_len}"
                        ))
                        .hint("quote values that contain the delimiter or a line break, or fix the row"),
                    ),
                    _ => damaged(&self.reader, &self.path, error).into(),
                });
            }
        }
        let value = self.record.get(self.column).unwrap_or_default();
        match std::str::from_utf8(value) {
            Ok(text) => within_limit(text.to_owned(), place, self.max_document_bytes).map(Some),
            Err(error) => Err(ReadError::Row(
                UserError::failed(format!(
                    "{place}: the text is not UTF-8 (its byte {})",
                    error.valid_up_to()
                ))
                .hint("convert the file, for example with `iconv -t UTF-8`"),
            )),
        }
    }
}

fn damaged(reader: &Reader<Limited>, path: &Path, error: csv::Error) -> anyhow::Error {
    let limited = reader.get_ref();
    let place = place(path, reader.position().line());
    if limited.left == 0 {
        let megabytes = limited.limit >> 21;
        return anyhow!(
            UserError::failed(format!(
                "{place}: the row that starts here is far longer than {megabytes} MiB"
            ))
            .hint("close its quotes, or split its document into several")
        );
    }
    match error.into_kind() {
        ErrorKind::Io(error) => limited.input.damaged(&place, error),
        kind => anyhow!(UserError::failed(format!("{place}: {kind:?}")).hint("fix or remove the row")),
    }
}

/// Ends in an error where a single row would not fit into memory, such as after a quote that is never closed.
struct Limited {
    input: Input,
    limit: u64,
    /// Bytes that the current row may still read.
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("the row is too long"));
        }
        let read = self.input.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
