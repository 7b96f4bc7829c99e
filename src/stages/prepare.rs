//! The prepare stage: tokenizes text into one directory per source, shared by all runs with the same inputs.

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
    /// Origin of its text.
    pub origin: Origin<'a>,
    /// How to read its text.
    pub options: ReadOptions,
    /// The expected identity of its text.
    pub identity: &'a Identity,
    /// Fraction of its documents to hold out; 1 for validation text.
    pub validation_share: f64,
    /// The directory to create.
    pub dir: PathBuf,
}

/// Inputs of prepare.
pub struct Inputs<'a> {
    /// The training sources, followed by the validation text if it is a separate source.
    pub sources: Vec<Source<'a>>,
    /// The tokenizer.
    pub tokenizer: &'a TokenizerChoice,
    /// Its end-of-text token, if the experiment sets one.
    pub end_of_text: Option<&'a str>,
    /// Directory for a tokenizer trained on the training sources, if it is trained.
    pub trained: Option<PathBuf>,
    /// Regenerate existing data.
    pub force: bool,
    /// Reports the progress of downloads, and stops them on request.
    pub watch: Watch<'a>,
}

/// Prepares every source that does not exist yet, and returns all indexes.
///
/// # Errors
/// The text is missing, changed or unreadable; the disk is full; stopped on request. No partial data is left behind.
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
                    .with_context(|| format!("cannot prepare source {}", source.name))?
            }
        });
    }
    Ok(indices)
}

fn prepare_one(source: &Source<'_>, tokenizer: &Tokenizer, watch: Watch<'_>) -> Result<Index> {
    let documents = documents(source, watch)?;
    let (total_bytes, read_bytes) = (documents.total_bytes(), documents.bytes_read());
    let bar = Progress::new(&format!("tokenizing {}", source.name), Some(total_bytes), Unit::Bytes);
    let options = PrepareOptions {
        source: source.name.to_owned(),
        validation_share: source.validation_share,
        expected_text_bytes: Some(total_bytes),
        bad_rows: documents.bad_rows(),
        keep_going: &|| (watch.keep_going)(),
        progress: &mut |done| {
            bar.set_position(read_bytes.load(Ordering::Relaxed).min(total_bytes));
            bar.message(format!("{} tokens", done.tokens));
        },
    };
    prepare_source(documents, tokenizer, &source.dir, options)
}

/// The text of a source, if it still matches its key.
fn documents(source: &Source<'_>, watch: Watch<'_>) -> Result<Documents> {
    let files = SourceFiles::resolve(&source.origin, &source.options, watch)?;
    ensure!(
        files.identity() == *source.identity,
        UserError::failed(format!(
            "the text of source {} has changed since this run was started",
            source.name
        ))
        .hint("restore it, or run the experiment file again to start a new run on the changed text")
    );
    files.documents(watch)
}

fn load(inputs: &Inputs<'_>) -> Result<Tokenizer> {
    match (inputs.tokenizer, &inputs.trained) {
        (TokenizerChoice::Train(choice), Some(dir)) => {
            let path = dir.join("tokenizer.json");
            let _lock = lock(dir, inputs.watch)?;
            if path.is_file() && !inputs.force {
                return Ok(Tokenizer::from_file(&path, None)?);
            }
            let trained = train_tokenizer(inputs, choice.train).context("cannot train the tokenizer")?;
            keep(&trained, dir, &path)?;
            // Read it back, so that this run uses exactly what later runs will load.
            Ok(Tokenizer::from_file(&path, None)?)
        }
        _ => Ok(Tokenizer::load(inputs.tokenizer, inputs.end_of_text)?),
    }
}

fn train_tokenizer(inputs: &Inputs<'_>, entries: u32) -> Result<Tokenizer> {
    let bar = Progress::new(&format!("training the tokenizer ({entries} tokens)"), None, Unit::Items);
    let training = inputs.sources.iter().filter(|source| source.validation_share < 1.0);
    let streams: Vec<Documents> =
        training.map(|source| documents(source, inputs.watch)).collect::<Result<_>>()?;
    let counted = streams.into_iter().flatten().inspect(|_: &Result<Document>| bar.advance(1));
    Tokenizer::train(counted, entries, &|| (inputs.watch.keep_going)())
}

/// Stores a trained tokenizer: the end-of-text token, which `tokenizer.json` does not define, and then
/// `tokenizer.json`.
fn keep(tokenizer: &Tokenizer, dir: &Path, path: &Path) -> Result<()> {
    let text = tokenizer.stored_json();
    let config = json!({ "eos_token": tokenizer.end_of_text_token().token });
    fs::create_dir_all(dir)
        .and_then(|()| write_json(&dir.join("tokenizer_config.json"), &config))
        .and_then(|()| write_atomic(path, |out| out.write_all(text.as_bytes())))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Polling interval while waiting for another process.
const PATIENCE: Duration = Duration::from_millis(200);

/// The lock file for creating or removing the directory `dir`.
pub fn lock_file(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Waits until no other process is creating `dir`.
fn lock(dir: &Path, watch: Watch<'_>) -> Result<FileLock> {
    let path = lock_file(dir);
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}", parent.display()))
        .hint("choose another directory with --runs-dir")?;
    let mut told = false;
    loop {
        let lock = FileLock::try_exclusive(&path);
        if let Some(lock) = lock.with_context(|| format!("cannot lock {}", path.display()))? {
            return Ok(lock);
        }
        if !told {
            tracing::info!("waiting for another process to prepare {}", dir.display());
            told = true;
        }
        (watch.keep_going)()?;
        thread::sleep(PATIENCE);
    }
}
