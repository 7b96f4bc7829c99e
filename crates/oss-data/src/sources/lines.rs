//! Lines of a text file, plain or compressed, read in bounded memory and validated: UTF-8, no NUL, limited length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use oss_config::error::UserError;

use super::format::{Compression, known_binary};

const BUFFER_BYTES: usize = 1 << 18;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a file line by line.
pub struct Lines {
    path: PathBuf,
    compression: Compression,
    input: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    line: u64,
    offset: u64,
    max_line_bytes: usize,
}

impl Lines {
    /// Opens `path`; bytes read from the file (compressed ones for a compressed file) are added to `bytes_read`.
    ///
    /// # Errors
    /// If the file cannot be opened or starts like another format.
    pub fn open(
        path: &Path,
        compression: Compression,
        max_line_bytes: usize,
        bytes_read: Arc<AtomicU64>,
    ) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: file, bytes_read });
        let head = raw.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
        let found = known_binary(head).filter(|_| compression == Compression::None);
        if let Some((found, hint)) = found {
            bail!(UserError::failed(format!("{}: this is {found}", path.display())).hint(hint));
        }
        let input: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => {
                Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(raw)))
            }
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(raw)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
        };
        Ok(Self {
            path: path.into(),
            compression,
            input,
            buffer: Vec::new(),
            line: 0,
            offset: 0,
            max_line_bytes,
        })
    }

    /// `file:line` of the last line read.
    pub fn place(&self) -> String {
        place(&self.path, self.line)
    }

    /// The next line, without its `\n` or `\r\n`, and its 1-based number; `None` at the end of the file.
    ///
    /// # Errors
    /// Read errors, truncated or damaged compressed data, a NUL, invalid UTF-8, or a line longer than the limit (an
    /// error that `too_long` creates from the line number).
    pub fn next(&mut self, too_long: impl Fn(u64) -> anyhow::Error) -> Result<Option<(u64, &str)>> {
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
        let start = if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let line = &self.buffer[start..];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.max_line_bytes {
            return Err(too_long(self.line));
        }
        match std::str::from_utf8(line) {
            Ok(text) if !text.as_bytes().contains(&0) => Ok(Some((self.line, text))),
            Ok(_) => {
                let nul = line.iter().position(|byte| *byte == 0).unwrap_or(0) + start;
                Err(self.not_text(
                    "contains a NUL byte, so this is binary data",
                    nul,
                    "use a text file in UTF-8",
                ))
            }
            Err(error) => {
                let at = error.valid_up_to() + start;
                Err(self.not_text("is not UTF-8", at, "convert the file, for example with `iconv -t UTF-8`"))
            }
        }
    }

    fn not_text(&self, what: &str, at: usize, fix: &str) -> anyhow::Error {
        let unpacked = if self.compression == Compression::None { "" } else { " of the decompressed text" };
        anyhow!(
            UserError::failed(format!(
                "{}: the line {what} (byte {}{unpacked})",
                self.place(),
                self.offset + at as u64
            ))
            .hint(fix)
        )
    }

    fn damaged(&self, error: io::Error) -> anyhow::Error {
        let place = self.place();
        match (self.compression, error.kind()) {
            (Compression::None, _) => anyhow!(error).context(format!("cannot read {place}")),
            (packed, io::ErrorKind::UnexpectedEof) => {
                anyhow!(
                    UserError::failed(format!("{place}: the {} data is truncated", packed.name()))
                        .hint("download or compress the file again")
                )
            }
            (packed, _) => anyhow!(
                UserError::failed(format!("{place}: invalid {} data ({error})", packed.name()))
                    .hint("download or compress the file again")
            ),
        }
    }
}

/// `file:line`.
pub fn place(path: &Path, line: u64) -> String {
    format!("{}:{line}", path.display())
}

struct Counted<R> {
    inner: R,
    bytes_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
