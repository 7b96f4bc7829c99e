//! What initial weights declare: their shape and their tokenizer.

use std::path::{Path, PathBuf, absolute};

use anyhow::Result;

use super::{Initial, Place};
use crate::plan::PlanError;
use crate::plan::hub_pins::{downloaded_model, pin_model};
use crate::plan::identity::experiment_of;
use crate::plan::inputs::{Inputs, NetworkAccess};
use oss_config::error::ErrorReport;
use oss_config::{Dataset, Experiment, Model, TokenizerChoice};
use oss_data::{Tokenizer, TokenizerError};
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};
use oss_train::hf_format::read_config;

/// The file that defines a tokenizer.
const TOKENIZER: &str = "tokenizer.json";

/// The tokenizer that weights were trained with.
#[derive(Clone, Debug)]
pub struct WeightsTokenizer {
    /// What an experiment would set to use it.
    pub choice: TokenizerChoice,
    /// Its end-of-text token, if it was set.
    pub end_of_text: Option<String>,
    /// Its identity as an input, if it is recorded.
    identity: Option<String>,
}

impl WeightsTokenizer {
    fn in_folder(folder: &Path) -> Option<Self> {
        let choice = TokenizerChoice::Named(absolute(folder).ok()?.to_str()?.to_owned());
        folder.join(TOKENIZER).is_file().then_some(Self { choice, end_of_text: None, identity: None })
    }

    fn of_run(run: &RunDir, manifest: &Manifest, experiment: &Experiment) -> Option<Self> {
        let inputs: Option<Inputs> = serde_json::from_value(manifest.inputs.clone()).ok();
        let identity = inputs.as_ref().map(|inputs| inputs.tokenizer.clone());
        let Dataset { tokenizer, end_of_text, .. } = experiment.dataset.clone();
        let is_same = |digest| identity.is_none() || identity == Some(digest);
        let digest = Tokenizer::facts(&tokenizer, end_of_text.as_deref()).ok().and_then(|facts| facts.digest);
        if digest.is_some_and(is_same) {
            return Some(Self { choice: tokenizer, end_of_text, identity });
        }
        // It was trained, or its file is gone or has changed: copies are kept with the tokens and the export.
        let copies = inputs.and_then(|inputs| {
            let runs = run.runs().ok()?;
            let prepared = inputs.prepared_sources(experiment).ok()?.into_iter();
            let prepared = prepared.map(|source| runs.prepared(&source.key().0));
            Some(trained(&runs, &inputs, experiment).into_iter().chain(prepared).collect::<Vec<_>>())
        });
        let folders = copies.into_iter().flatten().chain([run.export()]);
        let found = folders.filter_map(|folder| Self::in_folder(&folder)).next()?;
        Some(Self { identity, ..found })
    }

    /// Whether `choice`, which is faster to load and encode with than a file, gives the same tokens.
    pub fn is(&self, choice: &TokenizerChoice) -> bool {
        let same = || -> Result<bool, TokenizerError> {
            let (ours, theirs) = (Tokenizer::load(choice, None)?, self.load()?);
            Ok(ours.end_of_text() == theirs.end_of_text() && ours.difference(&theirs)?.is_none())
        };
        same().unwrap_or(false)
    }

    fn load(&self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::load(&self.choice, self.end_of_text.as_deref())
    }
}

/// The folder of the tokenizer that an experiment trains, if it trains one.
fn trained(runs: &RunsDir, inputs: &Inputs, experiment: &Experiment) -> Option<PathBuf> {
    inputs.trained_tokenizer(experiment).map(|key| runs.trained_tokenizer(&key.0))
}

impl Initial {
    /// Their shape, including the vocabulary size; `None` if it is not recorded, or not downloaded while `reach` is local.
    ///
    /// # Errors
    /// The configuration is unreadable; the hub is unreachable.
    pub fn shape(&self, reach: NetworkAccess<'_>) -> Result<Option<Model>> {
        match &self.place {
            Place::Checkpoint(path) => Ok(run_of(path).map(|(_, _, experiment)| experiment.model)),
            Place::HuggingFace(path) => read_config(path).map(Some),
            Place::Hub { repo, commit, .. } => match reach {
                NetworkAccess::Hub(watch) => {
                    let pinned = pin_model(repo, commit, "config.json", watch)?;
                    pinned.fetch("config.json", watch)?;
                    read_config(&pinned.snapshot()).map(Some)
                }
                NetworkAccess::Local(_) => downloaded_model(repo, commit, "config.json")
                    .map(|folder| read_config(&folder))
                    .transpose(),
            },
        }
    }

    /// Their tokenizer; `None` if they have none with them, or it is not downloaded while `reach` is local.
    ///
    /// # Errors
    /// The hub is unreachable.
    pub fn tokenizer(&self, reach: NetworkAccess<'_>) -> Result<Option<WeightsTokenizer>> {
        match &self.place {
            Place::Checkpoint(path) => Ok(run_of(path).and_then(|(run, manifest, experiment)| {
                WeightsTokenizer::of_run(&run, &manifest, &experiment)
            })),
            Place::HuggingFace(path) => Ok(WeightsTokenizer::in_folder(path)),
            Place::Hub { repo, commit, .. } => {
                let is_here = || downloaded_model(repo, commit, TOKENIZER).is_some();
                if let NetworkAccess::Hub(watch) = reach
                    && !is_here()
                {
                    let pinned = pin_model(repo, commit, "config.json", watch)?;
                    if pinned.list(watch)?.iter().any(|file| file == TOKENIZER) {
                        Tokenizer::download(&pinned, watch)?;
                    }
                }
                let choice = TokenizerChoice::Named(format!("{repo}@{commit}"));
                Ok(is_here().then_some(WeightsTokenizer { choice, end_of_text: None, identity: None }))
            }
        }
    }

    /// Checks that text is encoded as it was for these weights.
    ///
    /// # Errors
    /// It is not ([`PlanError::OtherTokenizer`]), or the tokenizer cannot be loaded.
    pub fn check_tokenizer(
        &self,
        experiment: &Experiment,
        inputs: &Inputs,
        runs: &RunsDir,
        reach: NetworkAccess<'_>,
    ) -> Result<()> {
        let Some(theirs) = self.tokenizer(reach)? else { return Ok(()) };
        let dataset = &experiment.dataset;
        if theirs.identity.as_ref() == Some(&inputs.tokenizer) {
            return Ok(());
        }
        let other = |difference: String| {
            let weights = experiment.model.init_from.clone().unwrap_or_default();
            Err(PlanError::OtherTokenizer { weights, difference }.into())
        };
        let ours = match trained(runs, inputs, experiment) {
            None => Tokenizer::load(&dataset.tokenizer, dataset.end_of_text.as_deref())?,
            Some(folder) if folder.join(TOKENIZER).is_file() => Tokenizer::from_file(&folder, None)?,
            Some(_) => return other("it is trained on the text of this experiment".to_owned()),
        };
        match theirs.load().and_then(|theirs| ours.difference(&theirs)) {
            Ok(None) => Ok(()),
            Ok(Some(difference)) => other(difference.to_string()),
            Err(error) => {
                let error = ErrorReport::of(error);
                tracing::warn!("cannot compare dataset.tokenizer with that of the weights: {error}");
                Ok(())
            }
        }
    }
}

/// The run that a checkpoint belongs to; `None` if it was moved out of its run.
fn run_of(checkpoint: &Path) -> Option<(RunDir, Manifest, Experiment)> {
    let run = RunDir::new(checkpoint.parent()?.parent()?);
    let manifest = Manifest::load(&run).ok()?;
    let experiment = experiment_of(&manifest)?;
    Some((run, manifest, experiment))
}
