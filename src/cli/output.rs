//! Output to stdout.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes `text` to stdout. A closed pipe (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Writes one JSON document to stdout.
pub fn print_json<T: Serialize>(document: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(document).context("cannot serialize the result as JSON")?;
    text.push('\n');
    print(&text)
}
