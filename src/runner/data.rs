//! Prepared data, as read by later stages.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::progress::watch;
use crate::plan::inputs::digest_cache;
use crate::plan::keys::Key;
use crate::plan::{Corpus, Graph};
use crate::stages::prepare;
use oss_config::Experiment;
use oss_config::error::Hint;
use oss_data::sources::ReadOptions;
use oss_data::{Batches, Index, Prepared, TokenFile, Tokenizer};

/// The prepared sources of a run.
pub struct Data {
    /// Training sources with their weights.
    sources: Vec<(f64, Prepared)>,
    /// The validation tokens: from a separate source, or held out of each training source.
    held: Vec<Prepared>,
}

impl Data {
    /// Opens the prepared data.
    ///
    /// # Errors
    /// Prepared data is missing or corrupted.
    pub fn open(graph: &Graph) -> Result<Self> {
        let open = |key: &Key| Prepared::open(&graph.runs.prepared(&key.0));
        let weights = graph.inputs.sources.iter().map(|source| source.weight);
        let sources: Vec<(f64, Prepared)> = weights
            .zip(&graph.corpus().prepared_sources()?)
            .map(|(weight, key)| Ok((weight, open(key)?)))
            .collect::<Result<_>>()?;
        let held = match graph.corpus().prepared_validation()? {
            Some(own) => vec![open(&own)?],
            None => sources.iter().map(|(_, prepared)| prepared.clone()).collect(),
        };
        Ok(Self { sources, held })
    }

    /// The tokenizer that produced the tokens.
    ///
    /// # Errors
    /// It is not stored with the tokens.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let (_, first) = self
            .sources
            .first()
            .context("the experiment has no dataset")
            .hint("set dataset.builtin, dataset.files or dataset.hub")?;
        first.tokenizer()
    }

    /// Reads all tokens and verifies their digests.
    ///
    /// # Errors
    /// A file is corrupted; the message names it and the fix.
    pub fn verify(&self) -> Result<()> {
        let all = self.sources.iter().map(|(_, prepared)| prepared).chain(&self.held);
        let mut seen: Vec<&Path> = Vec::new();
        for prepared in all {
            if !seen.contains(&prepared.dir()) {
                prepared.verify()?;
                seen.push(prepared.dir());
            }
        }
        Ok(())
    }

    /// The training samples.
    ///
    /// # Errors
    /// A source is shorter than one window.
    pub fn batches(&self, experiment: &Experiment) -> Result<Batches> {
        let open = |(weight, prepared): &(f64, Prepared)| Ok((*weight, Arc::new(prepared.train()?)));
        let sources = self.sources.iter().map(open).collect::<Result<_>>()?;
        let sequence_length = usize::try_from(experiment.train.sequence_length)?;
        Batches::new(sources, experiment.run.seed, sequence_length)
    }

    /// The validation tokens, concatenated over sources; `None` if nothing was held out.
    ///
    /// # Errors
    /// A file cannot be memory-mapped.
    pub fn validation(&self) -> Result<Option<Tokens>> {
        let part = |prepared: &Prepared| prepared.index().validation.clone();
        let tokens: u64 = self.held.iter().map(|prepared| part(prepared).tokens).sum();
        let bytes: u64 = self.held.iter().map(|prepared| part(prepared).text_bytes).sum();
        if tokens == 0 {
            return Ok(None);
        }
        let files: Vec<TokenFile> = self.held.iter().map(Prepared::val).collect::<Result<_>>()?;
        Ok(Some(Tokens { files: Joined::new(files), bytes_per_token: bytes as f64 / tokens as f64 }))
    }

    /// Digests of the training tokens, in source order.
    pub fn digests(&self) -> Vec<String> {
        self.sources.iter().map(|(_, prepared)| prepared.index().train.digest.clone()).collect()
    }

    /// Rejects text shorter than one window: a training source has nothing to train on then, and validation text would be
    /// of little use.
    ///
    /// # Errors
    /// It is too short; the message suggests a fix.
    pub fn check_lengths(&self, experiment: &Experiment) -> Result<()> {
        let sequence_length = usize::try_from(experiment.train.sequence_length)?;
        self.sources.iter().try_for_each(|(_, source)| source.require_training(sequence_length))?;
        let asked_for =
            experiment.dataset.validation.fraction > 0.0 || experiment.dataset.validation.origin().is_some();
        if !asked_for {
            return Ok(());
        }
        self.held.iter().try_for_each(|prepared| prepared.require_validation(sequence_length))
    }
}

/// Token files as one sequence.
enum Joined {
    One(TokenFile),
    Several(Vec<u32>),
}

impl Joined {
    fn new(mut files: Vec<TokenFile>) -> Self {
        match files.pop() {
            Some(only) if files.is_empty() => Self::One(only),
            last => Self::Several(files.iter().chain(&last).flat_map(|file| file.iter().copied()).collect()),
        }
    }
}

/// Tokens to evaluate on.
pub struct Tokens {
    files: Joined,
    /// Average bytes of text per token.
    pub bytes_per_token: f64,
}

impl Deref for Tokens {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.files {
            Joined::One(file) => file,
            Joined::Several(tokens) => tokens,
        }
    }
}

/// The tokenizer of a run: from its prepared data, by name, or from its export, in this order.
///
/// # Errors
/// It is found in none of these places.
pub fn tokenizer(graph: &Graph) -> Result<Tokenizer> {
    let prepared = Data::open(graph).and_then(|data| data.tokenizer());
    prepared.or_else(|missing| {
        let exported = graph.identity.run.export().join("tokenizer.json");
        let dataset = &graph.experiment.dataset;
        let end_of_text = dataset.end_of_text.as_deref();
        Tokenizer::load(&dataset.tokenizer, end_of_text)
            .or_else(|_| Tokenizer::from_file(&exported, end_of_text))
            .map_err(|_| missing)
    })
}

/// Prepares the text of an experiment, as far as it is not prepared yet; all of it with `force`. Returns each source with
/// its directory and index.
///
/// # Errors
/// Those of [`prepare::prepare`].
pub fn prepare_corpus(corpus: Corpus<'_>, force: bool) -> Result<Vec<(String, PathBuf, Index)>> {
    let dataset = &corpus.experiment.dataset;
    let trained = corpus.inputs.trained_tokenizer(corpus.experiment);
    let inputs = prepare::Inputs {
        sources: sources(corpus)?,
        tokenizer: &dataset.tokenizer,
        end_of_text: dataset.end_of_text.as_deref(),
        trained: trained.map(|key| corpus.runs.trained_tokenizer(&key.0)),
        force,
        watch: watch(),
    };
    let indices = prepare::prepare(&inputs)?;
    let made = inputs.sources.iter().zip(indices);
    Ok(made.map(|(source, index)| (source.name.to_owned(), source.dir.clone(), index)).collect())
}

/// The data that has to be prepared.
fn sources(corpus: Corpus<'_>) -> Result<Vec<prepare::Source<'_>>> {
    let Corpus { experiment, inputs, runs } = corpus;
    let dataset = &experiment.dataset;
    let cache = || Some(digest_cache(runs));
    let share = if dataset.validation.origin().is_some() { 0.0 } else { dataset.validation.fraction };
    let training = dataset.sources().into_iter().zip(&inputs.sources).zip(corpus.prepared_sources()?);
    let mut sources: Vec<prepare::Source<'_>> = training
        .map(|(((name, _, origin), source), key)| prepare::Source {
            name,
            origin,
            options: ReadOptions::source(dataset, name, cache()),
            identity: &source.identity,
            validation_share: share,
            dir: runs.prepared(&key.0),
        })
        .collect();
    let own = dataset.validation.origin().zip(inputs.validation.as_ref());
    if let (Some((origin, source)), Some(key)) = (own, corpus.prepared_validation()?) {
        sources.push(prepare::Source {
            name: "validation",
            origin,
            options: ReadOptions::validation(dataset, cache()),
            identity: &source.identity,
            validation_share: 1.0,
            dir: runs.prepared(&key.0),
        });
    }
    Ok(sources)
}
