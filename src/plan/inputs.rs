//! What an experiment reads, by content: sources, tokenizer, first weights.
//!
//! Nothing is downloaded here. A hub revision that is no commit has to be asked for once; the answer is pinned beside
//! the prepared data, so that the same experiment stays the same whatever moves on the hub. A plan asks nobody, and
//! says that such a source is unknown until it is prepared.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::initial::Initial;
use super::keys::{self, Key, KeyInputs};
use super::pins::Pins;
use oss_config::{Dataset, Experiment, Hub, Origin, TokenizerChoice};
use oss_data::Tokenizer;
use oss_data::sources::{Identity, ReadOptions, SourceFiles, Watch};
use oss_runs::run_dir::RunsDir;

/// Everything that an experiment reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Sources of the training text, in their order.
    pub sources: Vec<Source>,
    /// The validation text, where it is a source of its own.
    pub validation: Option<Source>,
    /// The tokenizer's identity: a digest of its definition, or of what it is learnt from.
    pub tokenizer: String,
    /// The first weights, where they are not random.
    pub initial: Option<Initial>,
}

/// One source of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name in plans and metrics.
    pub name: String,
    /// Its share of the mix, relative to the other weights.
    pub weight: f64,
    /// What its text is.
    pub identity: Identity,
}

impl Source {
    /// The text's digest, whatever the paths it was read from.
    pub fn content(&self) -> Result<String> {
        Ok(keys::hash(&serde_json::to_value(&self.identity)?).0)
    }
}

/// How far [`Inputs::find`] may go to learn what an input is.
#[derive(Clone, Copy)]
pub enum Reach<'a> {
    /// Only local files and pins.
    Local(Watch<'a>),
    /// Also asks the hub for the commit of a revision, and pins it.
    Hub(Watch<'a>),
}

impl<'a> Reach<'a> {
    /// Whom long work tells how far it is, and asks whether to go on.
    pub fn watch(self) -> Watch<'a> {
        let (Self::Local(watch) | Self::Hub(watch)) = self;
        watch
    }
}

impl Inputs {
    /// Looks up what `experiment` reads.
    ///
    /// `None` when something on the hub has no known commit yet and `reach` is local.
    ///
    /// # Errors
    /// A file that is missing or unreadable; a hub that does not answer; a stop on request.
    pub fn find(experiment: &Experiment, runs: &RunsDir, reach: Reach<'_>) -> Result<Option<Self>> {
        let dataset = &experiment.dataset;
        let mut pins = Pins::open(runs);
        let training = ReadOptions::training(dataset, Some(digest_cache(runs)));
        let mut sources = Vec::new();
        for (name, weight, origin) in dataset.sources() {
            let identity = identity(&origin, &training, &mut pins, reach)
                .map_err(|cause| PlanError::Text { name: name.to_owned(), cause })?;
            let Some(identity) = identity else { return Ok(None) };
            sources.push(Source { name: name.to_owned(), weight, identity });
        }
        let validation = match dataset.validation.origin() {
            None => None,
            Some(origin) => {
                let options = ReadOptions::validation(dataset, Some(digest_cache(runs)));
                let identity = identity(&origin, &options, &mut pins, reach)
                    .map_err(|cause| PlanError::Text { name: "validation".to_owned(), cause })?;
                let Some(identity) = identity else { return Ok(None) };
                Some(Source { name: "validation".to_owned(), weight: 1.0, identity })
            }
        };
        pins.save()?;
        let tokenizer = tokenizer_identity(dataset, &sources)?;
        let initial = match &experiment.model.init_from {
            None => None,
            Some(named) => match Initial::find(named, runs, reach)? {
                None => return Ok(None),
                found => found,
            },
        };
        Ok(Some(Self { sources, validation, tokenizer, initial }))
    }

    /// What prepare makes of each training source.
    ///
    /// # Errors
    /// None that can be met: identities are plain data.
    pub fn prepared_sources(&self, experiment: &Experiment) -> Result<Vec<KeyInputs>> {
        let prepare =
            |source: &Source| Ok(keys::prepare(experiment, &source.content()?, &self.tokenizer, false));
        self.sources.iter().map(prepare).collect()
    }

    /// What prepare makes of the validation text, where it is a source of its own.
    ///
    /// # Errors
    /// As [`Self::prepared_sources`].
    pub fn prepared_validation(&self, experiment: &Experiment) -> Result<Option<KeyInputs>> {
        let prepare =
            |source: &Source| Ok(keys::prepare(experiment, &source.content()?, &self.tokenizer, true));
        self.validation.as_ref().map(prepare).transpose()
    }

    /// Key of a tokenizer that is learnt from the training text; none for others.
    pub fn learnt_tokenizer(&self, experiment: &Experiment) -> Option<Key> {
        matches!(experiment.dataset.tokenizer, TokenizerChoice::Train(_)).then(|| Key(self.tokenizer.clone()))
    }
}

/// The file beside the prepared data that remembers digests of local files.
pub fn digest_cache(runs: &RunsDir) -> PathBuf {
    runs.prepared("digests.json")
}

/// A learnt vocabulary is a function of its size and of the text; others have a digest of their own.
fn tokenizer_identity(dataset: &Dataset, sources: &[Source]) -> Result<String> {
    if let Some(digest) = Tokenizer::facts(&dataset.tokenizer)?.digest {
        return Ok(digest);
    }
    let identities: Vec<&Identity> = sources.iter().map(|source| &source.identity).collect();
    let definition = serde_json::json!({
        "learnt": dataset.tokenizer,
        "sources": identities,
        "text_field": dataset.text_field,
        "separator": dataset.separator,
    });
    Ok(keys::hash(&definition).0)
}

fn identity(
    origin: &Origin<'_>,
    options: &ReadOptions,
    pins: &mut Pins,
    reach: Reach<'_>,
) -> Result<Option<Identity>> {
    if let Origin::Hub(hub) = origin {
        match (pins.get(hub), reach) {
            (None, Reach::Hub(_)) => {}
            (pinned, _) => return Ok(pinned),
        }
    }
    let identity = SourceFiles::resolve(origin, options, reach.watch())?.identity();
    if let Origin::Hub(hub) = origin {
        pins.set(hub, identity.clone());
    }
    Ok(Some(identity))
}

/// `experiment` with every hub revision replaced by its commit and every pattern by the files that it matched, so
/// that it means the same wherever it is run again.
pub fn pinned(experiment: &Experiment, inputs: &Inputs) -> Experiment {
    let mut pinned = experiment.clone();
    let dataset = &mut pinned.dataset;
    let training =
        dataset.hub.iter_mut().chain(dataset.source.iter_mut().filter_map(|source| source.hub.as_mut()));
    let identities = inputs.sources.iter().map(|source| &source.identity);
    let hubs = identities.filter(|identity| matches!(identity, Identity::Hub { .. }));
    for (hub, identity) in training.zip(hubs) {
        pin(hub, identity);
    }
    if let (Some(hub), Some(source)) = (dataset.validation.hub.as_mut(), inputs.validation.as_ref()) {
        pin(hub, &source.identity);
    }
    pinned
}

fn pin(hub: &mut Hub, identity: &Identity) {
    if let Identity::Hub { commit, files, .. } = identity {
        hub.revision.clone_from(commit);
        hub.files.clone_from(files);
    }
}
