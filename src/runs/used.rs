//! What a run needs that others made or share: prepared data, and the weights that it started from.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::overview::listed;
use crate::plan::Stage;
use crate::plan::identity::experiment_of;
use crate::plan::inputs::Inputs;
use crate::plan::keys::KeyInputs;
use oss_config::error::Hint;
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};

/// What one run needs.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Directories of prepared data and learnt tokenizers.
    pub prepared: BTreeSet<PathBuf>,
    /// Where the weights lay that it started from, if they were not random or the hub's.
    pub starts_from: Option<PathBuf>,
}

impl Needs {
    /// What `run`, one of `runs`, needs: what it has used, and what it would use if it went on now.
    ///
    /// # Errors
    /// Its manifest cannot be read, so that it might need anything.
    pub fn of(run: &RunDir, runs: &RunsDir) -> Result<Self> {
        let manifest = Manifest::load(run)?;
        let unreadable = || format!("{} is of another version of this program", run.manifest().display());
        let hint = "use the one that made it";
        let experiment = experiment_of(&manifest).with_context(unreadable).hint(hint)?;
        let inputs: Inputs =
            serde_json::from_value(manifest.inputs.clone()).with_context(unreadable).hint(hint)?;
        let used = manifest.stages.get(Stage::Prepare.name()).map(|record| record.inputs.values().cloned());
        let would =
            inputs.prepared_sources(&experiment)?.into_iter().chain(inputs.prepared_validation(&experiment)?);
        let keys = used.into_iter().flatten().chain(would.map(|inputs: KeyInputs| inputs.key().0));
        let learnt = inputs.learnt_tokenizer(&experiment).map(|key| runs.learnt_tokenizer(&key.0));
        Ok(Self {
            prepared: keys.map(|key| runs.prepared(&key)).chain(learnt).collect(),
            starts_from: inputs.initial.as_ref().and_then(|initial| initial.path()).map(Path::to_owned),
        })
    }

    /// Whether it started from weights in `run`.
    pub fn starts_from(&self, run: &RunDir) -> bool {
        let Some(path) = &self.starts_from else { return false };
        let whole = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let inside =
            whole(path).ok().zip(whole(run.root()).ok()).is_some_and(|(path, run)| path.starts_with(run));
        // A relative path was relative to where the program was then.
        let (name, id) = (run.name(), run.id());
        let parts: Vec<&OsStr> = path.iter().collect();
        inside
            || (path.is_relative() && parts.windows(2).any(|two| two == [OsStr::new(&name), OsStr::new(&id)]))
    }
}

/// What each run of `runs` needs, those that were run again among them; an error for each that does not tell.
///
/// # Errors
/// The directory of all runs cannot be read.
pub fn all(runs: &RunsDir) -> Result<Vec<(RunDir, Result<Needs>)>> {
    let needs = |run: RunDir| {
        let needs = Needs::of(&run, runs);
        (run, needs)
    };
    let all = listed(runs)?.into_iter().chain(listed(&runs.reproductions())?).collect::<Vec<_>>();
    Ok(all.into_par_iter().map(needs).collect())
}
