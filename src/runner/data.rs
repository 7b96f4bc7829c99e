//! Prepared data as the later stages read it.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::plan::Graph;
use crate::plan::inputs::digest_cache;
use crate::plan::keys::Key;
use crate::stages::prepare;
use oss_config::Experiment;
use oss_config::error::Hint;
use oss_data::sources::ReadOptions;
use oss_data::{Batches, Prepared, TokenFile, Tokenizer};

/// The prepared sources of a run.
pub struct Data {
    /// Training sources with their weights.
    sources: Vec<(f64, Prepared)>,
    /// Where the validation tokens lie: a source of its own, or what is held out of each training source.
    held: Vec<Prepared>,
}

impl Data {
    /// Opens what prepare has made.
    ///
    /// # Errors
    /// Prepared data that is missing or damaged.
    pub fn open(graph: &Graph) -> Result<Self> {
        let open = |key: &Key| Prepared::open(&graph.runs.prepared(&key.0));
        let weights = graph.inputs.sources.iter().map(|source| source.weight);
        let sources: Vec<(f64, Prepared)> = weights
            .zip(&graph.prepared_sources()?)
            .map(|(weight, key)| Ok((weight, open(key)?)))
            .collect::<Result<_>>()?;
        let held = match graph.prepared_validation()? {
            Some(own) => vec![open(&own)?],
            None => sources.iter().map(|(_, prepared)| prepared.clone()).collect(),
        };
        Ok(Self { sources, held })
    }

    /// The tokenizer that made the tokens.
    ///
    /// # Errors
    /// It is not where the tokens are.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let (_, first) =
            self.sources.first().context("the experiment names no text").hint("set dataset.builtin")?;
        first.tokenizer()
    }

    /// Reads every token once and compares it with its digest.
    ///
    /// # Errors
    /// The file that is damaged, and what to do.
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
    /// A source shorter than one window.
    pub fn batches(&self, experiment: &Experiment) -> Result<Batches> {
        let open = |(weight, prepared): &(f64, Prepared)| Ok((*weight, Arc::new(prepared.train()?)));
        let sources = self.sources.iter().map(open).collect::<Result<_>>()?;
        let sequence_length = usize::try_from(experiment.train.sequence_length)?;
        Batches::new(sources, experiment.run.seed, sequence_length)
    }

    /// The validation tokens; none where nothing was held out. Several sources' are one after the other.
    ///
    /// # Errors
    /// A file that cannot be mapped.
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

    /// Digests of the training tokens, in the order of the sources.
    pub fn digests(&self) -> Vec<String> {
        self.sources.iter().map(|(_, prepared)| prepared.index().train.digest.clone()).collect()
    }

    /// Refuses validation text that is shorter than one window, which would say little.
    ///
    /// # Errors
    /// It is too short; the message says what would make it longer.
    pub fn check_validation(&self, experiment: &Experiment) -> Result<()> {
        let sequence_length = usize::try_from(experiment.train.sequence_length)?;
        let asked_for =
            experiment.dataset.validation.share > 0.0 || experiment.dataset.validation.origin().is_some();
        if !asked_for {
            return Ok(());
        }
        self.held.iter().try_for_each(|prepared| prepared.require_validation(sequence_length))
    }
}

/// Token files as one slice.
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
    /// Bytes of text that a token stands for, on average.
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

/// The tokenizer of a run: from its prepared data, else by its name, else from its export.
///
/// # Errors
/// It is in none of these places.
pub fn tokenizer(graph: &Graph) -> Result<Tokenizer> {
    let prepared = Data::open(graph).and_then(|data| data.tokenizer());
    prepared.or_else(|missing| {
        let exported = graph.identity.run.export().join("tokenizer.json");
        Tokenizer::load(&graph.experiment.dataset.tokenizer)
            .or_else(|_| Tokenizer::from_file(&exported))
            .map_err(|_| missing)
    })
}

/// What the prepare stage has to make for `graph`.
///
/// # Errors
/// None that can be met: identities are plain data.
pub fn sources(graph: &Graph) -> Result<Vec<prepare::Source<'_>>> {
    let dataset = &graph.experiment.dataset;
    let cache = || Some(digest_cache(&graph.runs));
    let share = if dataset.validation.origin().is_some() { 0.0 } else { dataset.validation.share };
    let training = dataset.sources().into_iter().zip(&graph.inputs.sources).zip(graph.prepared_sources()?);
    let mut sources: Vec<prepare::Source<'_>> = training
        .map(|(((name, _, origin), source), key)| prepare::Source {
            name,
            origin,
            options: ReadOptions::training(dataset, cache()),
            identity: &source.identity,
            validation_share: share,
            dir: graph.runs.prepared(&key.0),
        })
        .collect();
    let own = dataset.validation.origin().zip(graph.inputs.validation.as_ref());
    if let (Some((origin, source)), Some(key)) = (own, graph.prepared_validation()?) {
        sources.push(prepare::Source {
            name: "validation",
            origin,
            options: ReadOptions::validation(dataset, cache()),
            identity: &source.identity,
            validation_share: 1.0,
            dir: graph.runs.prepared(&key.0),
        });
    }
    Ok(sources)
}
