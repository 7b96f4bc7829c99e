//! Lines of a text file, plain or compressed, read in bounded memory and validated: UTF-8, limited length.

use std::io::{self, BufRead, Read};

use oss_config::error::UserError;

use super::bad_rows::ReadError;
use super::input::{BUFFER_BYTES, Input, place};

/// Reads a file line by line.
pub struct Lines {
    input: Input,
    buffer: Vec<u8>,
    line: u64,
    offset: u64,
    max_line_bytes: usize,
}

/// One line.
pub struct Line<'a> {
    /// Its 1-based number.
    pub number: u64,
    /// Its text, without its `\n` or `\r\n`.
    pub text: &'a str,
    /// Whether it ends with a line break, as every line does except perhaps the last.
    pub is_terminated: bool,
}

impl Lines {
    /// Reads the lines of `input`.
    pub fn new(input: Input, max_line_bytes: usize) -> Self {
        let offset = input.mark_bytes;
        Self { input, buffer: Vec::new(), line: 0, offset, max_line_bytes }
    }

    /// `file:line` of the line with this number.
    pub fn place(&self, line: u64) -> String {
        place(self.input.path(), line)
    }

    /// The next line; `None` at the end of the file.
    ///
    /// # Errors
    /// Read errors; truncated or damaged compressed data. A line that is not UTF-8 or longer than the limit (an error
    /// that `too_long` creates from the line's place) is a bad row.
    pub fn next(&mut self, too_long: impl Fn(String) -> ReadError) -> Result<Option<Line<'_>>, ReadError> {
        self.offset += self.buffer.len() as u64;
        // A buffer that grew for one huge line is not kept for the small ones after it.
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
        self.line += 1;
        let limit = self.max_line_bytes as u64 + 3;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| self.damaged(error))?;
        if read == 0 {
            return Ok(None);
        }
        let line = self.buffer.strip_suffix(b"\n");
        let is_terminated = line.is_some();
        let line = line.unwrap_or(&self.buffer);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.max_line_bytes {
            if !is_terminated {
                let skipped = skip_line(&mut self.input).map_err(|error| self.damaged(error))?;
                self.offset += skipped;
            }
            return Err(too_long(self.place(self.line)));
        }
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(Line { number: self.line, text, is_terminated })),
            Err(error) => Err(self.not_text(error.valid_up_to())),
        }
    }

    fn not_text(&self, at: usize) -> ReadError {
        let unpacked = if self.input.is_compressed() { " of the decompressed text" } else { "" };
        ReadError::Row(
            UserError::failed(format!(
                "{}: the line is not UTF-8 (byte {}{unpacked})",
                self.place(self.line),
                self.offset + at as u64
            ))
            .hint("convert the file, for example with `iconv -t UTF-8`"),
        )
    }

    fn damaged(&self, error: io::Error) -> anyhow::Error {
        self.input.damaged(&self.place(self.line), error)
    }
}

/// Skips the rest of a line, and returns its length.
fn skip_line(input: &mut Input) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let length = end.map_or(buffer.len(), |end| end + 1);
        input.consume(length);
        skipped += length as u64;
        if end.is_some() || length == 0 {
            return Ok(skipped);
        }
    }
}
