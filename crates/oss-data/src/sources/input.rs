//! The bytes of a file, decompressed, without a byte order mark, and checked to be text.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use flate2::bufread::GzDecoder;
use oss_config::error::UserError;

use super::format::{Compression, other_format};

/// Size of the buffers between the file, the decompressor and the reader of lines.
pub const BUFFER_BYTES: usize = 1 << 18;
/// Bytes at the start of the text that are checked for other formats.
const HEAD_BYTES: u64 = 4096;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The largest window that a Zstandard frame can ask for on 64 bits, as written by `zstd --long=31`.
const MAX_WINDOW_LOG: u32 = 31;

/// The text of a file, as bytes.
pub struct Input {
    path: PathBuf,
    compression: Compression,
    reader: Box<dyn BufRead + Send>,
    /// Bytes of the byte order mark, which is not part of the text.
    pub mark_bytes: u64,
}

impl Input {
    /// Opens `path`; bytes read from the file (compressed ones for a compressed file) are added to `bytes_read`.
    ///
    /// # Errors
    /// If the file cannot be opened, or its text starts like another format.
    pub fn open(path: &Path, compression: Compression, bytes_read: Arc<AtomicU64>) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let raw = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: file, bytes_read });
        let reader: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, GzipMembers::new(raw))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(raw)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                decoder
                    .window_log_max(MAX_WINDOW_LOG)
                    .context("this build of Zstandard does not support long windows")?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
        };
        let mut input = Self { path: path.into(), compression, reader, mark_bytes: 0 };
        let mut head = Vec::new();
        if let Err(error) = (&mut input.reader).take(HEAD_BYTES).read_to_end(&mut head) {
            return Err(input.damaged(&place(path, 1), error));
        }
        if let Some((found, hint)) = other_format(&head) {
            let what = if compression == Compression::None { "this" } else { "the decompressed file" };
            bail!(UserError::failed(format!("{}: {what} is {found}", path.display())).hint(hint));
        }
        if head.starts_with(BYTE_ORDER_MARK) {
            head.drain(..BYTE_ORDER_MARK.len());
            input.mark_bytes = BYTE_ORDER_MARK.len() as u64;
        }
        input.reader = Box::new(Cursor::new(head).chain(input.reader));
        Ok(input)
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the bytes differ from those of the file.
    pub fn is_compressed(&self) -> bool {
        self.compression != Compression::None
    }

    /// Explains a failed read at `place`.
    pub fn damaged(&self, place: &str, error: io::Error) -> anyhow::Error {
        let problem = match (self.compression, error.kind()) {
            (Compression::None, _) => return anyhow!(error).context(format!("cannot read {place}")),
            (packed, io::ErrorKind::UnexpectedEof) => format!("the {} data is truncated", packed.name()),
            (packed, _) => format!("invalid {} data ({error})", packed.name()),
        };
        anyhow!(UserError::failed(format!("{place}: {problem}")).hint("download or compress the file again"))
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

/// `file:line`.
pub fn place(path: &Path, line: u64) -> String {
    format!("{}:{line}", path.display())
}

/// gzip with any number of members, and with zeros after them, which tapes and `tar` pad with.
struct GzipMembers<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipMembers<R> {
    fn new(raw: R) -> Self {
        Self { member: Some(GzDecoder::new(raw)) }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut raw) = self.member.take().map(GzDecoder::into_inner) else { return Ok(0) };
            if skip_zeros(&mut raw)? {
                self.member = Some(GzDecoder::new(raw));
            }
        }
    }
}

/// Skips zeros; whether anything follows them.
fn skip_zeros(raw: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = raw.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let found_more = zeros < buffer.len();
        raw.consume(zeros);
        if found_more {
            return Ok(true);
        }
    }
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
