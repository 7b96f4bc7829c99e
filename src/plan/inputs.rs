//! The inputs of an experiment by content: sources, tokenizer, initial weights.
//!
//! Nothing is downloaded here. A hub revision that is not a commit is resolved once, and the commit is pinned next to
//! the prepared data, so that the experiment keeps its meaning when the hub changes. A plan does not query the hub, and
//! reports an unresolved source as unknown until prepared.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::hub_pins::Pins;
use super::initial::Initial;
use super::keys::{self, Key, KeyInputs};
use oss_config::{Dataset, Experiment, Hub, OnBadRow, Origin, TokenizerChoice};
use oss_data::Tokenizer;
use oss_data::sources::{Identity, ReadOptions, SourceFiles, Watch};
use oss_runs::run_dir::{RunsDir, Stage};

/// All inputs of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Sources of the training text, in order.
    pub sources: Vec<Source>,
    /// The validation text, if it is a separate source.
    pub validation: Option<Source>,
    /// The tokenizer's identity: a digest of its definition, or of the text it is trained on.
    pub tokenizer: String,
    /// The initial weights, if not random.
    pub initial: Option<Initial>,
}

/// A text source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name in plans and metrics.
    pub name: String,
    /// Its weight in the mix, relative to the other sources.
    pub weight: f64,
    /// The identity of its text.
    pub identity: Identity,
}

impl Source {
    /// Digest of the text, independent of file paths.
    pub fn content(&self) -> Result<String> {
        Ok(keys::hash(&serde_json::to_value(&self.identity)?).0)
    }
}

/// What [`Inputs::find`] may access to identify an input.
#[derive(Clone, Copy)]
pub enum NetworkAccess<'a> {
    /// Only local files and pinned revisions.
    Local(Watch<'a>),
    /// Also query the hub for the commit of a revision, and pin it.
    Hub(Watch<'a>),
}

impl<'a> NetworkAccess<'a> {
    /// The callbacks that report progress of long work and stop it on request.
    pub fn watch(self) -> Watch<'a> {
        let (Self::Local(watch) | Self::Hub(watch)) = self;
        watch
    }
}

impl Inputs {
    /// Identifies the inputs of `experiment`.
    ///
    /// `None` if an input on the hub has no pinned commit yet and `reach` is local.
    ///
    /// # Errors
    /// A file is missing or unreadable; the hub is unreachable; stopped on request.
    pub fn find(experiment: &Experiment, runs: &RunsDir, reach: NetworkAccess<'_>) -> Result<Option<Self>> {
        let dataset = &experiment.dataset;
        let mut pins = Pins::open(runs);
        let mut sources = Vec::new();
        for (name, weight, origin) in dataset.sources() {
            let options = ReadOptions::source(dataset, name, Some(digest_cache(runs)));
            let identity = identity(&origin, &options, &mut pins, reach)
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

    /// The prepared data of each training source.
    ///
    /// # Errors
    /// Never in practice: identities are plain data.
    pub fn prepared_sources(&self, experiment: &Experiment) -> Result<Vec<KeyInputs>> {
        let prepare = |source: &Source| {
            let text = experiment.dataset.source_text_keys(&source.name);
            Ok(keys::prepare(experiment, text, &source.content()?, &self.tokenizer, false))
        };
        self.sources.iter().map(prepare).collect()
    }

    /// The prepared data of the validation text, if it is a separate source.
    ///
    /// # Errors
    /// Those of [`Self::prepared_sources`].
    pub fn prepared_validation(&self, experiment: &Experiment) -> Result<Option<KeyInputs>> {
        let prepare = |source: &Source| {
            let text = experiment.dataset.validation_text_keys();
            Ok(keys::prepare(experiment, text, &source.content()?, &self.tokenizer, true))
        };
        self.validation.as_ref().map(prepare).transpose()
    }

    /// Key of a tokenizer trained on the training text; `None` for others. Like prepared data, it is made again by a new
    /// version of prepare, and stays the same in the identity of a run.
    pub fn trained_tokenizer(&self, experiment: &Experiment) -> Option<Key> {
        let is_trained = matches!(experiment.dataset.tokenizer, TokenizerChoice::Train(_));
        let made_of =
            || serde_json::json!({ "tokenizer": self.tokenizer, "version": Stage::Prepare.version() });
        is_trained.then(|| keys::hash(&made_of()))
    }
}

/// The cache of local file digests, next to the prepared data.
pub fn digest_cache(runs: &RunsDir) -> PathBuf {
    runs.prepared("digests.json")
}

/// A trained tokenizer is a function of its size and the text; others have their own digest.
fn tokenizer_identity(dataset: &Dataset, sources: &[Source]) -> Result<String> {
    if let Some(digest) = Tokenizer::facts(&dataset.tokenizer, dataset.end_of_text.as_deref())?.digest {
        return Ok(digest);
    }
    let identities: Vec<&Identity> = sources.iter().map(|source| &source.identity).collect();
    let mut definition = serde_json::json!({
        "train": dataset.tokenizer,
        "sources": identities,
        "text_field": dataset.text_field,
        "separator": dataset.separator,
    });
    // Only what is set enters, so that adding a key changes no identity.
    if dataset.trim {
        definition["trim"] = true.into();
    }
    if dataset.on_bad_row == OnBadRow::Skip {
        definition["on_bad_row"] = serde_json::to_value(dataset.on_bad_row)?;
    }
    for source in &dataset.source {
        if source.text_field.is_some() || source.separator.is_some() {
            definition["own"][&source.name] = serde_json::json!([source.text_field, source.separator]);
        }
    }
    Ok(keys::hash(&definition).0)
}

fn identity(
    origin: &Origin<'_>,
    options: &ReadOptions,
    pins: &mut Pins,
    reach: NetworkAccess<'_>,
) -> Result<Option<Identity>> {
    if let Origin::Hub(hub) = origin {
        match (pins.get(hub), reach) {
            (None, NetworkAccess::Hub(_)) => {}
            (pinned, _) => return Ok(pinned),
        }
    }
    let identity = SourceFiles::resolve(origin, options, reach.watch())?.identity();
    if let Origin::Hub(hub) = origin {
        pins.set(hub, identity.clone());
    }
    Ok(Some(identity))
}

/// `experiment` with every hub revision replaced by its commit and every pattern by the matching files, so that it
/// means the same wherever it is rerun.
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
