//! Labels and notes, changed after the fact.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::plan::identity::experiment_of;
use oss_config::error::{Hint, UserError, user_errors};
use oss_runs::run_dir::{Manifest, RunDir, write_atomic};

/// Changes to labels and notes.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Labels to set, with their values.
    pub set: Vec<(String, String)>,
    /// Labels to remove.
    pub remove: Vec<String>,
    /// New notes; an empty string removes them.
    pub notes: Option<String>,
}

/// Labels and notes of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Marks {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Notes.
    pub notes: Option<String>,
}

/// A label to be removed does not exist.
#[derive(Debug)]
pub struct NoLabel {
    name: String,
    known: Vec<String>,
}

impl From<NoLabel> for UserError {
    fn from(error: NoLabel) -> Self {
        let NoLabel { name, known } = error;
        Self::wrong(format!("the run has no label {name}")).hint(if known.is_empty() {
            "it has no labels".to_owned()
        } else {
            format!("it has {}", known.join(", "))
        })
    }
}

user_errors!(NoLabel);

impl Marks {
    /// The labels and notes in a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        Self { labels: manifest.labels(), notes: manifest.notes().map(str::to_owned) }
    }
}

/// Changes the labels and notes of `run`, and returns the new ones.
///
/// # Errors
/// [`NoLabel`]; the run is in progress, so its manifest belongs to another process; the files cannot be written.
pub fn label(run: &RunDir, change: &Change) -> Result<Marks> {
    let _lock = run.lock_for_writing()?;
    let mut manifest = Manifest::load(run)?;
    for name in &change.remove {
        let known = manifest.labels();
        if !known.contains_key(name) {
            return Err(NoLabel { name: name.clone(), known: known.into_keys().collect() }.into());
        }
        manifest.set_label(name, None);
    }
    for (name, value) in &change.set {
        manifest.set_label(name, Some(value));
    }
    if let Some(notes) = &change.notes {
        manifest.set_notes(Some(notes.as_str()).filter(|notes| !notes.is_empty()));
    }
    // Keep experiment.toml consistent with the manifest, unless another version wrote it.
    if let Some(experiment) = experiment_of(&manifest) {
        let path = run.experiment_toml();
        let text = experiment.to_toml().context("cannot serialize the experiment as TOML")?;
        write_atomic(&path, |out| out.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
            .hint("check disk space and permissions")?;
    }
    manifest.save(run)?;
    Ok(Marks::of(&manifest))
}
