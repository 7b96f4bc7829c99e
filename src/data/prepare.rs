//! Text to token files: streaming, on all cores, in the order of the text.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::Document;
use super::index::{INDEX, Index, Part, TOKENIZER, TRAIN, VALIDATION};
use super::tokenizer::Tokenizer;
use super::work_dir::WorkDir;

/// Text that each core gets in a round, in bytes. About three rounds are in memory at once; a document is never cut.
const ROUND_BYTES_PER_CORE: usize = 2 * 1024 * 1024;

/// How often a slow source is interrupted to ask whether to go on.
const PATIENCE: Duration = Duration::from_millis(200);

/// How a source is prepared.
pub struct PrepareOptions<'a> {
    /// What the text is, in words, for the index and for messages.
    pub source: String,
    /// Share of the documents held out, from 0 (none) to 1 (all: a validation source of its own).
    pub validation_share: f64,
    /// Size of the text in bytes, where it is known: says how much room is missing when the disk is full.
    pub expected_text_bytes: Option<u64>,
    /// Asked several times a second; its error ends the work and leaves nothing behind.
    pub keep_going: &'a dyn Fn() -> Result<()>,
    /// Told, after each round, how far the work is.
    pub progress: &'a mut dyn FnMut(PrepareProgress),
}

/// How far a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrepareProgress {
    /// Documents so far.
    pub documents: u64,
    /// Bytes of their text.
    pub text_bytes: u64,
    /// Tokens written.
    pub tokens: u64,
}

/// Turns `documents` into `<out>/train.bin`, `<out>/val.bin` and `<out>/index.json`, with `tokenizer.json` beside them
/// where the tokenizer is not built in.
///
/// A document's outer white space is trimmed, empty ones are dropped, and end-of-text closes each. Which side of the
/// split a document is on depends on its text alone, so neither order nor neighbours move it. The files are the same
/// whatever the number of threads, and `out` appears, or is replaced, only when they are complete.
///
/// # Errors
/// What reading a document returns; a document that the tokenizer refuses; no document at all; no room on the disk; and
/// what `keep_going` returns.
pub fn prepare_source(
    documents: impl Iterator<Item = Result<Document>> + Send,
    tokenizer: &Tokenizer,
    out: &Path,
    options: PrepareOptions<'_>,
) -> Result<Index> {
    let work = WorkDir::create(out)?;
    let source = options.source.clone();
    let validation_share = options.validation_share;
    let mut writer = SplitWriter::new(work.path(), options)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let (sender, receiver) = sync_channel(1);
        let stop = &stop;
        scope.spawn(move || read_rounds(documents, &sender, stop));
        let written = write_rounds(receiver, tokenizer, &mut writer);
        stop.store(true, Ordering::Relaxed);
        written
    })?;

    let parts = writer.finish()?;
    ensure!(
        parts.iter().any(|part| part.documents > 0),
        "{source} has no text; check dataset.text_field, dataset.separator and the files named"
    );
    let index = Index::new(source, tokenizer, validation_share, parts);
    write_beside(work.path(), tokenizer, &index)?;
    work.commit(out)?;
    Ok(index)
}

type Round = Vec<Document>;

/// Reads ahead, a round at a time, until the text ends, fails, or nobody wants more.
fn read_rounds(
    documents: impl Iterator<Item = Result<Document>>,
    sender: &SyncSender<Result<Round>>,
    stop: &AtomicBool,
) {
    let full = ROUND_BYTES_PER_CORE * rayon::current_num_threads().clamp(2, 32);
    let mut round = Round::new();
    let mut bytes = 0;
    for document in documents {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match document {
            Ok(document) => {
                bytes += document.text.len() + size_of::<Document>() + document.place.len();
                round.push(document);
            }
            Err(error) => {
                // What was read before the error is of no use without the rest. A failed send means nobody listens.
                let _ = sender.send(Err(error));
                return;
            }
        }
        if bytes >= full {
            bytes = 0;
            if sender.send(Ok(std::mem::take(&mut round))).is_err() {
                return;
            }
        }
    }
    let _ = sender.send(Ok(round));
}

fn write_rounds(
    rounds: Receiver<Result<Round>>,
    tokenizer: &Tokenizer,
    writer: &mut SplitWriter<'_>,
) -> Result<()> {
    loop {
        (writer.options.keep_going)()?;
        let round = match rounds.recv_timeout(PATIENCE) {
            Ok(round) => round?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let share = writer.options.validation_share;
        let encoded: Vec<_> = round
            .into_par_iter()
            .map(|document| encode(document, tokenizer, share))
            .collect::<Result<_>>()?;
        encoded.into_iter().flatten().try_for_each(|document| writer.push(&document))?;
        (writer.options.progress)(writer.done);
    }
}

/// A document as it goes into its file.
struct Encoded {
    held_out: bool,
    text_bytes: u64,
    tokens: Vec<u32>,
}

fn encode(document: Document, tokenizer: &Tokenizer, validation_share: f64) -> Result<Option<Encoded>> {
    let Document { text, place } = document;
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let mut tokens = tokenizer.encode(text).with_context(|| place.clone())?;
    let largest = tokens.iter().max().copied().unwrap_or_default();
    ensure!(
        i64::from(largest) < tokenizer.vocab_size(),
        "{place}: the tokenizer gave id {largest}, beyond its vocabulary of {}; set another dataset.tokenizer",
        tokenizer.vocab_size()
    );
    tokens.push(tokenizer.end_of_text());
    let held_out = fraction(text) < validation_share;
    Ok(Some(Encoded { held_out, text_bytes: text.len() as u64, tokens }))
}

/// A number in [0, 1) that the text alone decides.
fn fraction(text: &str) -> f64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(text.as_bytes()).as_bytes();
    let bits = u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> (u64::BITS - f64::MANTISSA_DIGITS);
    bits as f64 / (1_u64 << f64::MANTISSA_DIGITS) as f64
}

/// The two token files while they grow.
struct SplitWriter<'a> {
    train: PartWriter,
    validation: PartWriter,
    done: PrepareProgress,
    options: PrepareOptions<'a>,
}

impl<'a> SplitWriter<'a> {
    fn new(dir: &Path, options: PrepareOptions<'a>) -> Result<Self> {
        Ok(Self {
            train: PartWriter::create(dir.join(TRAIN))?,
            validation: PartWriter::create(dir.join(VALIDATION))?,
            done: PrepareProgress::default(),
            options,
        })
    }

    fn push(&mut self, document: &Encoded) -> Result<()> {
        let part = if document.held_out { &mut self.validation } else { &mut self.train };
        part.push(document).map_err(|error| self.explain(error))?;
        self.done.documents += 1;
        self.done.text_bytes += document.text_bytes;
        self.done.tokens += document.tokens.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<[Part; 2]> {
        let flushed = self.train.flush().and_then(|()| self.validation.flush());
        flushed.map_err(|error| self.explain(error))?;
        Ok([self.train, self.validation]
            .map(|writer| Part { digest: writer.hasher.finalize().to_hex().to_string(), ..writer.part }))
    }

    /// Says what a failed write needs.
    fn explain(&self, error: io::Error) -> anyhow::Error {
        let path = self.train.path.parent().unwrap_or(&self.train.path).display();
        if error.kind() != io::ErrorKind::StorageFull {
            return anyhow::Error::new(error).context(format!("writing tokens to {path} failed"));
        }
        let written = self.done.tokens * size_of::<u32>() as u64;
        let whole = self.options.expected_text_bytes.filter(|_| self.done.text_bytes > 0).map(|expected| {
            let ratio = expected as f64 / self.done.text_bytes as f64;
            format!(" of about {:.0}", written as f64 * ratio.max(1.0))
        });
        anyhow::Error::new(error).context(format!(
            "no room on the disk for {path}: {written} bytes{} were written; free room there or set --runs-dir",
            whole.unwrap_or_default()
        ))
    }
}

/// One token file while it grows, with its digest.
struct PartWriter {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    part: Part,
}

impl PartWriter {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path, file, hasher: blake3::Hasher::new(), part: Part::default() })
    }

    fn push(&mut self, document: &Encoded) -> io::Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(&document.tokens);
        self.hasher.update(bytes);
        self.part.documents += 1;
        self.part.tokens += document.tokens.len() as u64;
        self.part.text_bytes += document.text_bytes;
        self.file.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// Writes what lies beside the tokens: the index, and a tokenizer that is not built in, whose configuration names the
/// end-of-text token that its own file does not.
fn write_beside(dir: &Path, tokenizer: &Tokenizer, index: &Index) -> Result<()> {
    let write = |name: &str, text: String| -> Result<()> {
        let path = dir.join(name);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.with_context(|| format!("cannot write {}", path.display()))
    };
    if tokenizer.name() == TOKENIZER {
        write(TOKENIZER, tokenizer.hugging_face_json())?;
        let eos = tokenizer.decode(&[tokenizer.end_of_text()]);
        write("tokenizer_config.json", serde_json::json!({ "eos_token": eos }).to_string())?;
    }
    write(INDEX, serde_json::to_string_pretty(index)?)
}

#[cfg(test)]
mod tests;
