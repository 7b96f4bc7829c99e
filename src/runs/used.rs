//! What a run needs from outside its directory: prepared data, and its initial weights.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::overview::listed;
use crate::plan::Stage;
use crate::plan::identity::experiment_of;
use crate::plan::inputs::Inputs;
use crate::plan::keys::KeyInputs;
use oss_config::error::Hint;
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};

/// The needs of a run.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Directories of prepared data and trained tokenizers.
    pub prepared: BTreeSet<PathBuf>,
    /// Path of its initial weights, if not random or from the hub.
    pub starts_from: Option<PathBuf>,
}

impl Needs {
    /// What `run`, one of `runs`, needs: what it has used, and what it would use if resumed now.
    ///
    /// # Errors
    /// Its manifest cannot be read, so it might need anything.
    pub fn load(run: &RunDir, runs: &RunsDir) -> Result<Self> {
        let manifest = Manifest::load(run)?;
        let unreadable =
            || format!("{} was written by another version of this program", run.manifest().display());
        let hint = "use the version of oss-run that created it";
        let experiment = experiment_of(&manifest).with_context(unreadable).hint(hint)?;
        let inputs: Inputs =
            serde_json::from_value(manifest.inputs.clone()).with_context(unreadable).hint(hint)?;
        let used = manifest.stages.get(Stage::Prepare.name()).map(|record| record.inputs.values().cloned());
        let would =
            inputs.prepared_sources(&experiment)?.into_iter().chain(inputs.prepared_validation(&experiment)?);
        let keys = used.into_iter().flatten().chain(would.map(|inputs: KeyInputs| inputs.key().0));
        let trained = inputs.trained_tokenizer(&experiment).map(|key| runs.trained_tokenizer(&key.0));
        // That of the initial weights may have been trained in this runs directory.
        let ours = absolute(runs.all_prepared());
        let taken = experiment.dataset.tokenizer.path().zip(ours.ok());
        let taken =
            taken.and_then(|(path, ours)| Some(runs.all_prepared().join(path.strip_prefix(ours).ok()?)));
        Ok(Self {
            prepared: keys.map(|key| runs.prepared(&key)).chain(trained).chain(taken).collect(),
            starts_from: inputs.initial.as_ref().and_then(|initial| initial.path()).map(Path::to_owned),
        })
    }

    /// Whether it was initialized from weights in `run`.
    pub fn starts_from(&self, run: &RunDir) -> bool {
        let Some(path) = &self.starts_from else { return false };
        let whole = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let inside =
            whole(path).ok().zip(whole(run.root()).ok()).is_some_and(|(path, run)| path.starts_with(run));
        // A relative path is relative to the working directory at that time.
        let (name, id) = (run.name(), run.id());
        let parts: Vec<&OsStr> = path.iter().collect();
        inside
            || (path.is_relative() && parts.windows(2).any(|two| two == [OsStr::new(&name), OsStr::new(&id)]))
    }
}

/// The needs of each run in `runs`, including reproductions; an error for each that is unreadable.
///
/// # Errors
/// The runs directory cannot be read.
pub fn all(runs: &RunsDir) -> Result<Vec<(RunDir, Result<Needs>)>> {
    let needs = |run: RunDir| {
        let needs = Needs::load(&run, runs);
        (run, needs)
    };
    let all = listed(runs)?.into_iter().chain(listed(&runs.reproductions())?).collect::<Vec<_>>();
    Ok(all.into_par_iter().map(needs).collect())
}
