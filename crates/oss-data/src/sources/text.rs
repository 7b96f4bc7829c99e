//! Plain text: documents between separators.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use memchr::memmem::Finder;

use super::bad_rows::ReadError;
use super::input::place;
use super::lines::Lines;
use crate::Document;
use oss_config::error::UserError;

/// The documents of a text file.
///
/// A line equal to the separator (apart from surrounding white space) separates documents, together with the line
/// breaks before and after it, so `"\n<|endoftext|>\n".join(documents)` gives the documents back. A separator in angle
/// brackets, like the special tokens of most vocabularies, also separates within a line; the line break after it, if it
/// is at the end of the line, belongs to it. Line endings become `\n`; all else is kept. A stretch without any text is
/// not a document.
pub struct TextDocuments {
    path: PathBuf,
    lines: Lines,
    separator: Separator,
    max_document_bytes: usize,
    rest: Option<Rest>,
}

/// A line whose start belongs to an earlier document.
struct Rest {
    number: u64,
    line: String,
    /// Where the unread part starts.
    start: usize,
    is_terminated: bool,
}

impl TextDocuments {
    /// Reads documents from `lines` of `path`.
    pub fn new(path: &Path, lines: Lines, separator: &str, max_document_bytes: usize) -> Self {
        let separator = Separator::new(separator);
        Self { path: path.into(), lines, separator, max_document_bytes, rest: None }
    }

    /// The next document with text in it; `None` at the end of the file.
    ///
    /// # Errors
    /// As for [`Lines::next`], where a bad line makes its document bad; and if a document exceeds the limit.
    pub fn next(&mut self) -> Result<Option<Document>, ReadError> {
        let mut text = String::new();
        let mut first_line = None;
        let mut bad = None;
        loop {
            let rest = self.rest.take();
            let too_long = |at: String| {
                let start = first_line.map_or(at, |line| place(&self.path, line));
                ReadError::File(over_limit(&start, &self.separator.text, self.max_document_bytes))
            };
            let (number, line, is_terminated) = match &rest {
                Some(rest) => (rest.number, &rest.line[rest.start..], rest.is_terminated),
                None => match self.lines.next(too_long) {
                    Ok(Some(line)) => (line.number, line.text, line.is_terminated),
                    Ok(None) => break,
                    Err(ReadError::Row(error)) => {
                        bad.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let cut = self.separator.find(line);
            let before = match cut {
                Cut::Nowhere => line,
                Cut::Line => "",
                Cut::Within { start, .. } => &line[..start],
            };
            if text.len() + before.len() >= self.max_document_bytes {
                return Err(too_long(place(&self.path, number)));
            }
            text.push_str(before);
            if first_line.is_none() && !before.trim_start().is_empty() {
                first_line = Some(number);
            }
            match cut {
                Cut::Nowhere => {
                    if is_terminated {
                        text.push('\n');
                    }
                    continue;
                }
                Cut::Line => drop(text.pop()),
                // White space up to the end of the line belongs to the separator.
                Cut::Within { end, .. } if line[end..].trim_start().is_empty() => {}
                Cut::Within { end, .. } => {
                    let copied = rest.is_none().then(|| line[end..].to_owned());
                    self.rest = Some(match (rest, copied) {
                        (Some(rest), _) => Rest { start: rest.start + end, ..rest },
                        (None, copied) => {
                            Rest { number, line: copied.unwrap_or_default(), start: 0, is_terminated }
                        }
                    });
                }
            }
            if first_line.is_some() || bad.is_some() {
                break;
            }
            text.clear();
        }
        match (bad, first_line) {
            (Some(error), _) => Err(ReadError::Row(error)),
            (None, first_line) => {
                Ok(first_line.map(|line| Document { text, place: place(&self.path, line) }))
            }
        }
    }
}

struct Separator {
    text: String,
    /// Finds it within a line, if it counts there.
    finder: Option<Finder<'static>>,
}

/// Where a line has a separator.
enum Cut {
    Nowhere,
    /// The line is nothing else.
    Line,
    Within {
        start: usize,
        end: usize,
    },
}

impl Separator {
    fn new(text: &str) -> Self {
        let text = text.trim_end().to_owned();
        let is_token = text.starts_with('<') && text.ends_with('>');
        let finder = is_token.then(|| Finder::new(&text).into_owned());
        Self { text, finder }
    }

    fn find(&self, line: &str) -> Cut {
        let Some(finder) = &self.finder else {
            return if line.trim_end() == self.text { Cut::Line } else { Cut::Nowhere };
        };
        match finder.find(line.as_bytes()) {
            None => Cut::Nowhere,
            Some(_) if line.trim() == self.text => Cut::Line,
            Some(start) => Cut::Within { start, end: start + self.text.len() },
        }
    }
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
