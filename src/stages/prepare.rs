//! prepare: text to tokens, a directory for each source, shared by every run that reads the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use oss_config::error::{Hint, UserError};
use oss_config::{Origin, TokenizerChoice};
use oss_data::sources::{Documents, Identity, ReadOptions, SourceFiles, Watch};
use oss_data::{Document, Index, PrepareOptions, Prepared, Tokenizer, prepare_source, recover};
use oss_runs::monitor::{Progress, Unit};
use oss_runs::run_dir::{write_atomic, write_json};
use oss_runs::storage::FileLock;

/// One source to prepare.
pub struct Source<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// Where its text comes from.
    pub origin: Origin<'a>,
    /// How its text is read.
    pub options: ReadOptions,
    /// What its text has to be.
    pub identity: &'a Identity,
    /// Share of its documents that is held out; 1 for validation text.
    pub validation_share: f64,
    /// The directory to make.
    pub dir: PathBuf,
}

/// What prepare reads.
pub struct Inputs<'a> {
    /// The training sources, then the validation text, if it is a source of its own.
    pub sources: Vec<Source<'a>>,
    /// The tokenizer.
    pub tokenizer: &'a TokenizerChoice,
    /// Where a vocabulary learnt from the training sources is kept.
    pub learnt: PathBuf,
    /// Make even what is there.
    pub force: bool,
    /// Whom downloads tell how far they are; also asked whether to go on.
    pub watch: Watch<'a>,
}

/// Prepares every source that is not there yet, and returns the index of each.
///
/// # Errors
/// Text that is gone, changed or unreadable; a disk that is full; a stop on request. Nothing half-made is left.
pub fn prepare(inputs: &Inputs<'_>) -> Result<Vec<Index>> {
    let mut tokenizer = None;
    let mut indices = Vec::new();
    for source in &inputs.sources {
        let _lock = lock(&source.dir, inputs.watch)?;
        recover(&source.dir);
        let made = (!inputs.force).then(|| Prepared::open(&source.dir).ok()).flatten();
        indices.push(match made {
            Some(made) => made.index().clone(),
            None => {
                let tokenizer = match &mut tokenizer {
                    Some(tokenizer) => tokenizer,
                    none => none.insert(load(inputs)?),
                };
                prepare_one(source, tokenizer, inputs.watch)
                    .with_context(|| format!("preparing the source {}", source.name))?
            }
        });
    }
    Ok(indices)
}

fn prepare_one(source: &Source<'_>, tokenizer: &Tokenizer, watch: Watch<'_>) -> Result<Index> {
    let documents = documents(source, watch)?;
    let (total_bytes, read_bytes) = (documents.total_bytes(), documents.bytes_read());
    let bar = Progress::new(&format!("tokenising {}", source.name), Some(total_bytes), Unit::Bytes);
    let options = PrepareOptions {
        source: source.name.to_owned(),
        validation_share: source.validation_share,
        expected_text_bytes: Some(total_bytes),
        keep_going: &|| (watch.keep_going)(),
        progress: &mut |done| {
            bar.set_position(read_bytes.load(Ordering::Relaxed).min(total_bytes));
            bar.message(format!("{} tokens", done.tokens));
        },
    };
    prepare_source(documents, tokenizer, &source.dir, options)
}

/// The text of a source, if it is still what its key was made from.
fn documents(source: &Source<'_>, watch: Watch<'_>) -> Result<Documents> {
    let files = SourceFiles::resolve(&source.origin, &source.options, watch)?;
    ensure!(
        files.identity() == *source.identity,
        UserError::failed(format!(
            "the text of source {} is no longer what this run was started with",
            source.name
        ))
        .hint("bring it back, or run the experiment file again, which starts a run on the text as it is now")
    );
    files.documents(watch)
}

fn load(inputs: &Inputs<'_>) -> Result<Tokenizer> {
    match inputs.tokenizer {
        TokenizerChoice::Named(_) => Ok(Tokenizer::load(inputs.tokenizer)?),
        TokenizerChoice::Train(choice) => {
            let path = inputs.learnt.join("tokenizer.json");
            let _lock = lock(&inputs.learnt, inputs.watch)?;
            if path.is_file() && !inputs.force {
                return Ok(Tokenizer::from_file(&path)?);
            }
            let learnt = learn(inputs, choice.train).context("learning the vocabulary")?;
            keep(&learnt, &inputs.learnt, &path)?;
            // Read back, so that this run and the next ones hold the same thing.
            Ok(Tokenizer::from_file(&path)?)
        }
    }
}

fn learn(inputs: &Inputs<'_>, entries: u32) -> Result<Tokenizer> {
    let bar = Progress::new(&format!("learning {entries} tokens"), None, Unit::Items);
    let training = inputs.sources.iter().filter(|source| source.validation_share < 1.0);
    let streams: Vec<Documents> =
        training.map(|source| documents(source, inputs.watch)).collect::<Result<_>>()?;
    let counted = streams.into_iter().flatten().inspect(|_: &Result<Document>| bar.advance(1));
    Tokenizer::learn(counted, entries, &|| (inputs.watch.keep_going)())
}

/// Keeps a learnt vocabulary: `tokenizer.json`, written last, and the end-of-text token that it does not name itself.
fn keep(tokenizer: &Tokenizer, dir: &Path, path: &Path) -> Result<()> {
    let text = tokenizer.hugging_face_json();
    let config = json!({ "eos_token": tokenizer.decode(&[tokenizer.end_of_text()]) });
    fs::create_dir_all(dir)
        .and_then(|()| write_json(&dir.join("tokenizer_config.json"), &config))
        .and_then(|()| write_atomic(path, |out| out.write_all(text.as_bytes())))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// How often a process that waits for another's work looks whether it is done.
const PATIENCE: Duration = Duration::from_millis(200);

/// The file that is locked by whoever makes or removes the directory `dir`.
pub fn lock_file(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Waits until nobody else makes `dir`.
fn lock(dir: &Path, watch: Watch<'_>) -> Result<FileLock> {
    let path = lock_file(dir);
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)
        .with_context(|| format!("cannot make {}", parent.display()))
        .hint("give another place with --runs-dir")?;
    let mut told = false;
    loop {
        let lock = FileLock::try_exclusive(&path);
        if let Some(lock) = lock.with_context(|| format!("cannot lock {}", path.display()))? {
            return Ok(lock);
        }
        if !told {
            tracing::info!("waiting for another process that prepares {}", dir.display());
            told = true;
        }
        (watch.keep_going)()?;
        thread::sleep(PATIENCE);
    }
}
