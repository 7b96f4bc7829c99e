//! Tokenizes text into token files: streaming, on all cores, in the order of the text.

mod encode;
mod split;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oss_config::error::{Hint, UserError};
use rayon::prelude::*;

use self::encode::{Encoded, Encoder, Tokens};
use self::split::Split;
use super::Document;
use super::document_digests::DigestWriter;
use super::index::{
    INDEX, Index, Part, Skipped, TOKENIZER, TRAIN, TRAIN_DOCUMENTS, VALIDATION, VALIDATION_DOCUMENTS,
};
use super::sources::BadRows;
use super::tokenizer::Tokenizer;
use oss_runs::storage::{Disk, StagedDir, clear_leftovers};

/// Bytes of text per core in each round. About three rounds of text and three of tokens are in memory at the same time;
/// a document is never split.
const ROUND_BYTES_PER_CORE: usize = 2 * 1024 * 1024;

/// Bytes of text to encode in one go: enough to be worth a task on a thread, and for hashing to be efficient.
const BATCH_BYTES: usize = 128 * 1024;

/// Bytes after which a growing file is synced, so that the disk is busy while the text is still being encoded.
const SYNC_BYTES: usize = 64 * 1024 * 1024;

/// How long to wait for a slow source before checking whether to continue.
const PATIENCE: Duration = Duration::from_millis(200);

/// The same for a slow disk; shorter, so that the writer never runs out of work.
const DISK_PATIENCE: Duration = Duration::from_millis(2);

/// How a source is prepared.
pub struct PrepareOptions<'a> {
    /// Description of the text, for the index and for messages.
    pub source: String,
    /// Fraction of the documents to hold out, from 0 (none) to 1 (all: a separate validation source).
    pub validation_share: f64,
    /// Size of the text in bytes, if known: used to report how much space is missing when the disk is full.
    pub expected_text_bytes: Option<u64>,
    /// The bad rows of the text, and what to do about a document that the tokenizer rejects.
    pub bad_rows: Arc<BadRows>,
    /// Called several times a second; an error ends the work and leaves nothing behind.
    pub keep_going: &'a dyn Fn() -> Result<()>,
    /// Called after each round with the progress so far.
    pub progress: &'a mut dyn FnMut(PrepareProgress),
}

/// Progress on a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrepareProgress {
    /// Documents so far.
    pub documents: u64,
    /// Bytes of their text.
    pub text_bytes: u64,
    /// Tokens produced from it.
    pub tokens: u64,
}

/// Tokenizes `documents` into `<out>/train.bin`, `<out>/val.bin`, digests of the documents in each, and
/// `<out>/index.json`, with `tokenizer.json` if the tokenizer is not built in.
///
/// Documents of only white space are dropped, and end-of-text follows each of the others. The side of the split that a
/// document is on depends on its text alone, so neither its position nor its neighbors matter; only if all documents
/// are on one side, the last one is split or moved. The files are the same for any number of threads, and `out` appears,
/// or is replaced, only when they are complete.
///
/// # Errors
/// Errors of reading a document; a document that the tokenizer rejects; no documents at all; a full disk; and errors of
/// `keep_going`.
pub fn prepare_source(
    documents: impl Iterator<Item = Result<Document>> + Send,
    tokenizer: &Tokenizer,
    out: &Path,
    options: PrepareOptions<'_>,
) -> Result<Index> {
    prepare_with(&Disk::default(), documents, tokenizer, out, options)
}

fn prepare_with(
    disk: &Disk,
    documents: impl Iterator<Item = Result<Document>> + Send,
    tokenizer: &Tokenizer,
    out: &Path,
    mut options: PrepareOptions<'_>,
) -> Result<Index> {
    let staged = stage(disk, out)?;
    let mut files = Files::create(staged.path())?;
    let stop = AtomicBool::new(false);
    let (written, blank_documents) = thread::scope(|scope| {
        let (to_encoder, rounds) = sync_channel(1);
        let (to_writer, encoded) = sync_channel(2);
        let stop = &stop;
        scope.spawn(move || read_rounds(documents, &to_encoder, stop));
        let files = &mut files;
        let writer = scope.spawn(move || write_rounds(&encoded, files));
        let encoded = encode_rounds(&rounds, tokenizer, &to_writer, &mut options);
        stop.store(true, Ordering::Relaxed);
        drop((rounds, to_writer));
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        encoded.map(|blank_documents| (written, blank_documents))
    })?;
    options.bad_rows.check()?;
    written.and_then(|()| files.sync()).map_err(|error| files.explain(error, &options))?;

    let PrepareOptions { source, validation_share, bad_rows, .. } = options;
    let parts = files.finish();
    ensure!(
        parts.iter().any(|part| part.documents > 0),
        UserError::failed(format!("{source} has no text")).hint("check dataset.text_field and the files")
    );
    let skipped = Skipped { bad_rows: bad_rows.count(), blank_documents };
    let index = Index::new(source, tokenizer, validation_share, parts, skipped);
    write_beside(staged.path(), tokenizer, &index)?;
    staged.commit().with_context(|| format!("cannot store the prepared tokens in {}", out.display()))?;
    report(&index, &bad_rows);
    Ok(index)
}

fn report(index: &Index, bad_rows: &BadRows) {
    let Index { source, skipped, .. } = index;
    if skipped.blank_documents > 0 {
        tracing::info!("{source}: left out {} documents of only white space", skipped.blank_documents);
    }
    if skipped.bad_rows > 0 {
        tracing::warn!("{source}: skipped {} bad rows:{}", skipped.bad_rows, bad_rows.first());
    }
}

/// Creates a directory to prepare `out` in; removes what dead processes left next to it.
fn stage(disk: &Disk, out: &Path) -> Result<StagedDir> {
    let parent = parent(out);
    std::fs::create_dir_all(parent)
        .and_then(|()| {
            recover_with(disk, out);
            StagedDir::create(disk, out)
        })
        .with_context(|| format!("cannot write to {}", parent.display()))
        .hint("free some space there, or choose another directory with --runs-dir")
}

/// Removes what dead processes left next to `out`, and restores the name of an older version that one of them had moved
/// aside. Call this only as the sole writer of `out`.
pub fn recover(out: &Path) {
    recover_with(&Disk::default(), out);
}

fn recover_with(disk: &Disk, out: &Path) {
    clear_leftovers(disk, parent(out), |name| Some(name) == out.file_name().and_then(|own| own.to_str()));
}

fn parent(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Consecutive documents of about [`BATCH_BYTES`].
type Batch = Vec<Document>;

/// Consecutive batches.
#[derive(Default)]
struct Round {
    batches: Vec<Batch>,
    /// The last document of all, if this is the last round.
    last: Option<Document>,
    /// Number of documents that were left out because they are only white space.
    blank_documents: u64,
}

/// Reads ahead, one round at a time, until the text ends, fails, or the receiver is gone.
fn read_rounds(
    documents: impl Iterator<Item = Result<Document>>,
    sender: &SyncSender<Result<Round>>,
    stop: &AtomicBool,
) {
    let full = ROUND_BYTES_PER_CORE * rayon::current_num_threads().clamp(2, 32);
    let (mut round, mut batch) = (Round::default(), Batch::new());
    let mut last = None;
    let (mut round_bytes, mut batch_bytes) = (0, 0);
    for document in documents {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match document {
            Ok(document) if document.text.trim_start().is_empty() => round.blank_documents += 1,
            Ok(document) => {
                // How the last document is split depends on all others, so each waits for the next one.
                let Some(document) = last.replace(document) else { continue };
                batch_bytes += document.text.len() + size_of::<Document>() + document.place.len();
                batch.push(document);
            }
            Err(error) => {
                // What was read before the error is useless without the rest. A failed send means the receiver is gone.
                let _ = sender.send(Err(error));
                return;
            }
        }
        if batch_bytes >= BATCH_BYTES {
            round.batches.push(std::mem::take(&mut batch));
            round_bytes += std::mem::take(&mut batch_bytes);
        }
        if round_bytes >= full {
            round_bytes = 0;
            if sender.send(Ok(std::mem::take(&mut round))).is_err() {
                return;
            }
        }
    }
    round.batches.push(batch);
    round.last = last;
    let _ = sender.send(Ok(round));
}

/// Passes on the tokens of each round, in order, until the text ends or the writer has failed, which reports why
/// itself. Returns the number of documents of only white space.
fn encode_rounds(
    rounds: &Receiver<Result<Round>>,
    tokenizer: &Tokenizer,
    writer: &SyncSender<Vec<Encoded>>,
    options: &mut PrepareOptions<'_>,
) -> Result<u64> {
    let mut done = PrepareProgress::default();
    let mut blank_documents = 0;
    // How many documents have been held out.
    let mut split = Split::default();
    loop {
        (options.keep_going)()?;
        let round = match rounds.recv_timeout(PATIENCE) {
            Ok(round) => round?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(blank_documents),
        };
        blank_documents += round.blank_documents;
        let encoder = Encoder { tokenizer, share: options.validation_share, bad_rows: &options.bad_rows };
        let encode = |batch| encoder.batch(batch);
        let mut encoded: Vec<Encoded> = round.batches.into_par_iter().map(encode).collect::<Result<_>>()?;
        encoded.iter().for_each(|batch| split.add(batch));
        if let Some(last) = round.last {
            encoded.push(encoder.last(&last, &split)?);
        }
        encoded.iter().for_each(|batch| done.add(batch));
        while let Err(refused) = writer.try_send(encoded) {
            match refused {
                TrySendError::Full(again) => encoded = again,
                TrySendError::Disconnected(_) => return Ok(blank_documents),
            }
            (options.keep_going)()?;
            thread::sleep(DISK_PATIENCE);
        }
        (options.progress)(done);
    }
}

impl PrepareProgress {
    fn add(&mut self, encoded: &Encoded) {
        for side in [&encoded.train, &encoded.validation] {
            self.documents += side.documents();
            self.text_bytes += side.text_bytes;
            self.tokens += side.tokens.len() as u64;
        }
    }
}

fn write_rounds(rounds: &Receiver<Vec<Encoded>>, files: &mut Files) -> io::Result<()> {
    rounds.iter().flatten().try_for_each(|batch| files.push(&batch))
}

/// The two token files while they are being written.
struct Files {
    train: PartWriter,
    validation: PartWriter,
    /// What has been written.
    done: PrepareProgress,
}

impl Files {
    fn create(dir: &Path) -> Result<Self> {
        Ok(Self {
            train: PartWriter::create(dir.join(TRAIN), &dir.join(TRAIN_DOCUMENTS))?,
            validation: PartWriter::create(dir.join(VALIDATION), &dir.join(VALIDATION_DOCUMENTS))?,
            done: PrepareProgress::default(),
        })
    }

    fn push(&mut self, batch: &Encoded) -> io::Result<()> {
        self.train.push(&batch.train)?;
        self.validation.push(&batch.validation)?;
        self.done.add(batch);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        for writer in [&mut self.train, &mut self.validation] {
            writer.file.sync_all()?;
            writer.digests.sync()?;
        }
        Ok(())
    }

    fn finish(self) -> [Part; 2] {
        [self.train, self.validation]
            .map(|writer| Part { digest: writer.hasher.finalize().to_hex().to_string(), ..writer.part })
    }

    /// Explains a failed write.
    fn explain(&self, error: io::Error, options: &PrepareOptions<'_>) -> anyhow::Error {
        let path = self.train.path.parent().unwrap_or(&self.train.path).display();
        if error.kind() != io::ErrorKind::StorageFull {
            return anyhow::Error::new(error).context(format!("writing tokens to {path} failed"));
        }
        let written = self.done.tokens * size_of::<u32>() as u64;
        let whole = options.expected_text_bytes.filter(|_| self.done.text_bytes > 0).map(|expected| {
            let ratio = expected as f64 / self.done.text_bytes as f64;
            format!(" of about {:.0}", written as f64 * ratio.max(1.0))
        });
        anyhow::Error::new(error)
            .context(format!(
                "not enough disk space for {path}: {written} bytes{} were written",
                whole.unwrap_or_default()
            ))
            .hint("free some space there, or choose another directory with --runs-dir")
    }
}

/// One token file while it is being written, with its digest and those of its documents.
struct PartWriter {
    path: PathBuf,
    file: File,
    unsynced_bytes: usize,
    hasher: blake3::Hasher,
    digests: DigestWriter,
    part: Part,
}

impl PartWriter {
    fn create(path: PathBuf, documents: &Path) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let digests = DigestWriter::create(documents)
            .with_context(|| format!("cannot write {}", documents.display()))?;
        let (hasher, part) = (blake3::Hasher::new(), Part::default());
        Ok(Self { path, file, unsynced_bytes: 0, hasher, digests, part })
    }

    fn push(&mut self, side: &Tokens) -> io::Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(&side.tokens);
        self.hasher.update(bytes);
        self.part.documents += side.documents();
        self.digests.push(&side.digests)?;
        self.part.tokens += side.tokens.len() as u64;
        self.part.text_bytes += side.text_bytes;
        self.file.write_all(bytes)?;
        self.unsynced_bytes += bytes.len();
        if self.unsynced_bytes >= SYNC_BYTES {
            self.unsynced_bytes = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Writes the files next to the tokens: the index and, if the tokenizer is not built in, the tokenizer and a
/// configuration with the end-of-text token, which its own file does not name.
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
        write(TOKENIZER, tokenizer.stored_json())?;
        let eos = &tokenizer.end_of_text_token().token;
        write("tokenizer_config.json", serde_json::json!({ "eos_token": eos }).to_string())?;
    }
    write(INDEX, serde_json::to_string_pretty(index)?)
}

#[cfg(test)]
mod tests;
