//! Resumes a run from its manifest.

use std::fs;

use anyhow::{Context, Result, bail};

use super::completion::complete;
use super::execution::{Execution, Options, Source};
use super::loaded_run::runs_of;
use super::progress::watch;
use crate::plan::identity::{self, Identity, TrainingFingerprint, experiment_of};
use crate::plan::inputs::{Inputs, NetworkAccess};
use crate::plan::keys::Key;
use crate::plan::{Graph, PlanError, table};
use oss_config::error::{Hint, UserError};
use oss_config::{Experiment, Overrides, Provenance};
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};

/// A run to be resumed.
pub struct Resuming {
    run: RunDir,
    manifest: Manifest,
    experiment: Experiment,
    provenance: Provenance,
}

impl Resuming {
    /// `run` with the overrides in `set` (`key=value`, which must not change the trajectory).
    ///
    /// # Errors
    /// `set` contains a key of the trajectory, or the manifest is corrupted.
    pub fn load(run: &RunDir, set: &[String]) -> Result<Self> {
        for argument in set {
            let key = argument.split_once('=').map_or(argument.as_str(), |(key, _)| key).trim();
            if table::in_trajectory(key) && table::role(key).is_some() {
                return Err(
                    PlanError::OtherTrajectory { run: run.root().to_owned(), key: key.to_owned() }.into()
                );
            }
        }
        let manifest = Manifest::load(run)?;
        let (experiment, provenance) = changed(run, &manifest, set, &runs_of(run)?)?;
        Ok(Self { run: run.clone(), manifest, experiment, provenance })
    }

    /// The experiment to run.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// Resumes the run.
    ///
    /// Environment variables and the files that the run was started from are ignored: its inputs are already prepared,
    /// or are looked up again only if missing.
    ///
    /// # Errors
    /// Those of [`Execution::of`].
    pub fn execution(self, options: Options) -> Result<Execution> {
        let Self { run, manifest, experiment, provenance } = self;
        let runs = runs_of(&run)?;
        let inputs = inputs(&experiment, &manifest, &runs)?;
        let source = Source { file: manifest.file.clone(), provenance };
        let identity = same_run(&run, manifest, &experiment, &inputs)?;
        Execution::plan(Graph { experiment, inputs, identity, runs }, source, options)
    }
}

/// The manifest's experiment with `set` applied.
fn changed(
    run: &RunDir,
    manifest: &Manifest,
    set: &[String],
    runs: &RunsDir,
) -> Result<(Experiment, Provenance)> {
    let Some(recorded) = experiment_of(manifest) else {
        bail!(
            UserError::failed(format!(
                "this program cannot read the experiment in {}",
                run.manifest().display()
            ))
            .hint("use the version of oss-run that created it")
        );
    };
    if set.is_empty() {
        return Ok((recorded, Provenance::default()));
    }
    // The manifest is authoritative, not experiment.toml, which may have been edited.
    let folder = tempfile::tempdir()
        .context("cannot create a temporary directory")
        .hint("set TMPDIR to a directory with free space")?;
    let file = folder.path().join("experiment.toml");
    fs::write(&file, recorded.to_toml()?).with_context(|| format!("cannot write {}", file.display()))?;
    let overrides = Overrides { set: set.to_vec(), unset: Vec::new(), environment: false };
    let resolved = oss_config::load(&file, &overrides)?;
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    // Everything else is recorded.
    let resolved = match resolved.experiment.train.epochs {
        Some(_) => complete(&resolved, runs, true)?,
        None => resolved,
    };
    Ok((resolved.experiment, resolved.provenance))
}

/// The run's inputs as of its start; changed validation text is looked up again.
fn inputs(experiment: &Experiment, manifest: &Manifest, runs: &RunsDir) -> Result<Inputs> {
    let recorded: Option<Inputs> = serde_json::from_value(manifest.inputs.clone()).ok();
    let before = experiment_of(manifest).map(|before| before.dataset.validation);
    match recorded {
        Some(recorded) if before.as_ref() == Some(&experiment.dataset.validation) => Ok(recorded),
        _ => Inputs::find(experiment, runs, NetworkAccess::Hub(watch()))?
            .context("cannot resolve the dataset on the hub")
            .hint("check the network and HF_ENDPOINT"),
    }
}

/// The run, if the changed experiment still maps to it.
fn same_run(run: &RunDir, manifest: Manifest, experiment: &Experiment, inputs: &Inputs) -> Result<Identity> {
    let wanted = TrainingFingerprint { experiment, inputs }.key_inputs()?;
    let recorded = manifest.keys.get(identity::TRAJECTORY).cloned().map(Key);
    let same = identity::versions(&wanted).find(|version| Some(version.key()) == recorded);
    let Some(trajectory) = same else {
        let old = experiment_of(&manifest).map_or(0, |before| before.train.steps);
        let new = experiment.train.steps;
        return Err(match old == new {
            true => {
                PlanError::OtherTrajectory { run: run.root().to_owned(), key: "the experiment".to_owned() }
            }
            false => {
                let ends_decay = identity::has_derived_end(experiment);
                PlanError::StepsRaised { run: run.root().to_owned(), old, new, ends_decay }
            }
        }
        .into());
    };
    identity::check_target(run, experiment)?;
    Ok(Identity { run: run.clone(), manifest: Some(manifest), trajectory })
}
