//! JSON: a list of objects, or objects one after the other, with the text in one of their fields.

use std::io::BufRead;
use std::mem;

use anyhow::anyhow;
use oss_config::error::UserError;

use super::bad_rows::ReadError;
use super::input::{Input, place};
use super::json_field::text_of;
use super::jsonl::within_limit;
use crate::Document;

/// The documents of a `.json` file. Objects are read one at a time, so the file may be larger than the memory.
pub struct JsonDocuments {
    input: Input,
    line: u64,
    at: At,
    field: String,
    max_document_bytes: usize,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// The first value of the file, or `[`.
    Start,
    /// A value after another one, without a list around them.
    Value,
    /// The first value of the list, or `]`.
    First,
    /// `,` or `]`.
    Comma,
    /// A value of the list.
    Item,
    /// Nothing more.
    End,
}

impl JsonDocuments {
    /// Reads the field `field` of each object.
    pub fn new(input: Input, field: &str, max_document_bytes: usize) -> Self {
        Self { input, line: 1, at: At::Start, field: field.into(), max_document_bytes }
    }

    /// The text of the next object; `None` at the end of the file.
    ///
    /// # Errors
    /// Read errors, and a file that is not such a list or sequence. A value that is not an object, lacks the field, or
    /// has a value other than a string there is a bad row.
    pub fn next(&mut self) -> Result<Option<Document>, ReadError> {
        if !self.find_value()? {
            return Ok(None);
        }
        let place = place(self.input.path(), self.line);
        let json = self.value(&place)?;
        self.at = match self.at {
            At::First | At::Item => At::Comma,
            _ => At::Value,
        };
        let json = String::from_utf8(json).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            ReadError::Row(
                UserError::failed(format!(
                    "{place}: the value that starts here is not UTF-8 (its byte {at})"
                ))
                .hint("convert the file, for example with `iconv -t UTF-8`"),
            )
        })?;
        let text = text_of(&json, &self.field, &place).map_err(ReadError::Row)?;
        within_limit(text, place, self.max_document_bytes).map(Some)
    }

    /// Moves to the start of the next value; whether there is one.
    fn find_value(&mut self) -> Result<bool, ReadError> {
        loop {
            let Some(byte) = self.peek()? else {
                return match self.at {
                    At::Start | At::Value | At::End => Ok(false),
                    _ => Err(self.broken("the list does not end")),
                };
            };
            self.at = match (byte, self.at) {
                (b'\n' | b' ' | b'\t' | b'\r', at) => at,
                (b'[', At::Start) => At::First,
                (b']', At::First | At::Comma) => At::End,
                (b',', At::Comma) => At::Item,
                (_, At::Comma) => return Err(self.broken("there is no comma between two values of the list")),
                (_, At::End) => return Err(self.broken("there is something after the end of the list")),
                (b',' | b']', _) => return Err(self.broken("a value is missing before a comma or bracket")),
                _ => return Ok(true),
            };
            self.line += u64::from(byte == b'\n');
            self.input.consume(1);
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        match self.input.fill_buf() {
            Ok(buffer) => Ok(buffer.first().copied()),
            Err(error) => Err(self.input.damaged(&place(self.input.path(), self.line), error).into()),
        }
    }

    /// The bytes of the value that starts here.
    fn value(&mut self, start: &str) -> Result<Vec<u8>, ReadError> {
        // A value contains its document in escaped form next to other fields, so it may be longer.
        let limit = self.max_document_bytes.saturating_mul(2);
        let mut value = Vec::new();
        let mut scan = Scan::default();
        loop {
            let buffer = match self.input.fill_buf() {
                Ok([]) => return Ok(value),
                Ok(buffer) => buffer,
                Err(error) => return Err(self.input.damaged(start, error).into()),
            };
            let end = scan.end_in(buffer);
            let length = end.unwrap_or(buffer.len());
            self.line += memchr::memchr_iter(b'\n', &buffer[..length]).count() as u64;
            if value.len() + length > limit {
                let megabytes = self.max_document_bytes >> 20;
                let message =
                    format!("{start}: the value that starts here is far longer than {megabytes} MiB");
                return Err(
                    anyhow!(UserError::failed(message).hint("split its document into several")).into()
                );
            }
            value.extend_from_slice(&buffer[..length]);
            self.input.consume(length);
            if end.is_some() {
                return Ok(value);
            }
        }
    }

    fn broken(&self, problem: &str) -> ReadError {
        let place = place(self.input.path(), self.line);
        anyhow!(
            UserError::failed(format!("{place}: invalid JSON ({problem})"))
                .hint("write one list of objects, or one object per line")
        )
        .into()
    }
}

/// Finds the end of one value.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Scan {
    /// Where the value ends in the next part of it.
    fn end_in(&mut self, part: &[u8]) -> Option<usize> {
        for (at, byte) in part.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if mem::take(&mut self.is_escaped) => {}
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' if self.depth == 1 => return Some(at + 1),
                b',' | b']' | b'\n' if self.depth == 0 => return Some(at),
                _ => {}
            }
        }
        None
    }
}
