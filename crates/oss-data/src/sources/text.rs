//! Plain text: documents separated by separator lines.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::lines::{self, Lines};
use crate::Document;
use oss_config::error::UserError;

/// The documents of a text file.
///
/// A line equal to the separator (apart from trailing whitespace) ends a document. A separator in the form of a special
/// token (`<|...|>`) also ends one at the start or the end of a line; within a line, it is text. Line endings become
/// `\n`. A stretch without any text is not a document.
pub struct TextDocuments {
    path: PathBuf,
    lines: Lines,
    separator: String,
    max_document_bytes: usize,
    /// What follows a separator at the start of a line.
    rest: Option<(u64, String)>,
}

impl TextDocuments {
    /// Reads documents from `lines` of `path`.
    pub fn new(path: &Path, lines: Lines, separator: &str, max_document_bytes: usize) -> Self {
        let separator = separator.trim_end().to_string();
        Self { path: path.into(), lines, separator, max_document_bytes, rest: None }
    }

    /// The next document with text in it; `None` at the end of the file.
    ///
    /// # Errors
    /// As for [`Lines::next`], and if a document exceeds the limit.
    pub fn next(&mut self) -> Result<Option<Document>> {
        let mut text = String::new();
        let mut first_line = None;
        loop {
            let start = first_line;
            let too_long = |line: u64| {
                let place = lines::place(&self.path, start.unwrap_or(line));
                over_limit(&place, &self.separator, self.max_document_bytes)
            };
            let (number, line) = match self.rest.take() {
                Some((number, rest)) => (number, Cow::Owned(rest)),
                None => match self.lines.next(too_long)? {
                    Some((number, line)) => (number, Cow::Borrowed(line)),
                    None => break,
                },
            };
            let (before, ends) = match part(&line, &self.separator) {
                Part::Plain => (Some(&*line), false),
                Part::Separator => (None, true),
                Part::Ending(before) => (Some(before), true),
                Part::Starting(rest) => {
                    self.rest = Some((number, rest.to_string()));
                    (None, true)
                }
            };
            if let Some(before) = before.filter(|before| !text.is_empty() || !before.trim().is_empty()) {
                first_line = start.or(Some(number));
                if text.len() + before.len() >= self.max_document_bytes {
                    return Err(too_long(number));
                }
                text.push_str(before);
                text.push('\n');
            }
            if ends && !text.is_empty() {
                break;
            }
        }
        Ok(first_line.map(|line| Document { text, place: lines::place(&self.path, line) }))
    }
}

enum Part<'a> {
    Plain,
    Separator,
    /// The line ends with the separator, preceded by this.
    Ending(&'a str),
    /// The line starts with the separator, followed by this.
    Starting(&'a str),
}

fn part<'a>(line: &'a str, separator: &str) -> Part<'a> {
    let line = line.trim_end();
    if line == separator {
        return Part::Separator;
    }
    if !(separator.starts_with("<|") && separator.ends_with("|>")) {
        return Part::Plain;
    }
    if let Some(rest) = line.strip_prefix(separator) {
        return Part::Starting(rest);
    }
    let mut before = line;
    while let Some(shorter) = before.strip_suffix(separator) {
        before = shorter.trim_end();
    }
    if before.len() < line.len() { Part::Ending(before) } else { Part::Plain }
}

fn over_limit(place: &str, separator: &str, max_document_bytes: usize) -> anyhow::Error {
    anyhow!(
        UserError::failed(format!(
            "{place}: the document that starts here is longer than {} MiB",
            max_document_bytes >> 20
        ))
        .hint(format!(
            "set dataset.separator (now {separator:?}) to the line that separates the \
             documents, or split the text"
        ))
    )
}
