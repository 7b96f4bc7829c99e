//! JSON Lines: one object per line, with the text in one of its fields.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::lines::{self, Lines};
use crate::Document;
use oss_config::error::UserError;

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
    pub fn next(&mut self) -> Result<Option<Document>> {
        let megabytes = self.max_document_bytes >> 20;
        loop {
            let too_long = |line| {
                let place = lines::place(&self.path, line);
                anyhow!(
                    UserError::failed(format!("{place}: the line is far longer than {megabytes} MiB"))
                        .hint("split its document into several")
                )
            };
            let Some((number, line)) = self.lines.next(too_long)? else { return Ok(None) };
            if line.trim().is_empty() {
                continue;
            }
            let place = lines::place(&self.path, number);
            return match text_of(line, &self.field) {
                Ok(text) if text.len() > self.max_document_bytes => Err(anyhow!(
                    UserError::failed(format!("{place}: the document is longer than {megabytes} MiB"))
                        .hint("split it into several")
                )),
                Ok(text) => Ok(Some(Document { text, place })),
                Err((problem, hint)) => {
                    Err(UserError::failed(format!("{place}: {problem}")).hint(hint).into())
                }
            };
        }
    }
}

fn text_of(line: &str, field: &str) -> Result<String, (String, &'static str)> {
    let mut parser = serde_json::Deserializer::from_str(line);
    let found = FieldOf(field).deserialize(&mut parser).and_then(|found| parser.end().map(|()| found));
    match found {
        Ok(Found::Text(text)) => Ok(text),
        Ok(Found::Other(kind)) => Err((
            format!("the field `{field}` is {kind}, not a string"),
            "fix the line or set dataset.text_field",
        )),
        Ok(Found::Missing(names)) => Err((
            format!(
                "no field `{field}` (found: {})",
                if names.is_empty() { "none".into() } else { names.join(", ") }
            ),
            "set dataset.text_field to the one with the text",
        )),
        // serde_json counts lines of its own input, which is one line here.
        Err(error) if error.is_data() => Err((
            "this is not a JSON object".into(),
            "write one object per line, such as {\"text\": \"...\"}",
        )),
        Err(error) => Err((
            format!(
                "invalid JSON at column {} ({})",
                error.column(),
                error.to_string().split(" at line ").next().unwrap_or_default()
            ),
            "fix or remove the line",
        )),
    }
}

enum Found {
    Text(String),
    Other(&'static str),
    Missing(Vec<String>),
}

/// Extracts one field from an object without building the others.
struct FieldOf<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for FieldOf<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Found;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = None;
        let mut names = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                found = Some(match map.next_value::<Value>()? {
                    Value::String(text) => Found::Text(text),
                    Value::Null => Found::Other("null"),
                    Value::Bool(_) => Found::Other("true or false"),
                    Value::Number(_) => Found::Other("a number"),
                    Value::Array(_) => Found::Other("a list"),
                    Value::Object(_) => Found::Other("an object"),
                });
            } else {
                map.next_value::<IgnoredAny>()?;
                names.push(name);
            }
        }
        Ok(found.unwrap_or(Found::Missing(names)))
    }
}
