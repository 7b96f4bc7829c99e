//! JSON Lines: one object per line, with the text in one of its fields.

use std::path::{Path, PathBuf};

use oss_config::error::UserError;

use super::bad_rows::ReadError;
use super::input::place;
use super::json_field::text_of;
use super::lines::Lines;
use crate::Document;

/// The documents of a `.jsonl` file. Blank lines are skipped.
pub struct JsonlDocuments {
    path: PathBuf,
    lines: Lines,
    field: String,
    max_document_bytes: usize,
}

impl JsonlDocuments {
    /// Reads the field `field` of each line of `path`.
    pub fn new(path: &Path, lines: Lines, field: &str, max_document_bytes: usize) -> Self {
        Self { path: path.into(), lines, field: field.into(), max_document_bytes }
    }

    /// The text of the next line; `None` at the end of the file.
    ///
    /// # Errors
    /// As for [`Lines::next`]; if a line is not a JSON object, lacks the field, or has a value other than a string
    /// there.
    pub fn next(&mut self) -> Result<Option<Document>, ReadError> {
        let megabytes = self.max_document_bytes >> 20;
        let too_long = |place| {
            ReadError::Row(
                UserError::failed(format!("{place}: the line is far longer than {megabytes} MiB"))
                    .hint("split its document into several"),
            )
        };
        loop {
            let Some(line) = self.lines.next(too_long)? else { return Ok(None) };
            if line.text.trim().is_empty() {
                continue;
            }
            let place = place(&self.path, line.number);
            let text = text_of(line.text, &self.field, &place).map_err(ReadError::Row)?;
            return within_limit(text, place, self.max_document_bytes).map(Some);
        }
    }
}

/// The document of a row, unless it is too long.
pub(super) fn within_limit(text: String, place: String, max_bytes: usize) -> Result<Document, ReadError> {
    if text.len() > max_bytes {
        let megabytes = max_bytes >> 20;
        return Err(ReadError::Row(
            UserError::failed(format!("{place}: the document is longer than {megabytes} MiB"))
                .hint("split it into several rows"),
        ));
    }
    Ok(Document { text, place })
}
