//! Maps an experiment to its run: the run id is a prefix of the training fingerprint.
//!
//! The same experiment finds its existing run, another trajectory gets another directory, and `--new` forces a new one.
//! Raising `train.steps` where the end of the learning-rate decay is derived from it gives another key and would
//! silently start another run. That case is detected and refused.

use std::path::Path;

use anyhow::{Context, Result};

use super::error::PlanError;
use super::inputs::Inputs;
use super::keys::{self, Key, KeyInputs};
use oss_config::error::{ErrorReport, Hint};
use oss_config::{Experiment, ScheduleKind};
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};
use oss_train::checkpoint::{self, Checkpoint};
use oss_train::optimizer::schedule::lr_multiplier;
use oss_train::train::Progress;

/// The run of an experiment.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its directory, which may not exist yet.
    pub run: RunDir,
    /// Its manifest; `None` for a new run.
    pub manifest: Option<Manifest>,
    /// Its trajectory, with the version of the train stage that it was started with.
    pub trajectory: KeyInputs,
}

/// What determines a trajectory.
#[derive(Clone, Copy, Debug)]
pub struct TrainingFingerprint<'a> {
    /// The experiment, with its vocabulary size filled in.
    pub experiment: &'a Experiment,
    /// Its inputs.
    pub inputs: &'a Inputs,
}

impl TrainingFingerprint<'_> {
    /// The trajectory's key and its inputs, with this program's version of the train stage.
    ///
    /// # Errors
    /// Those of [`Inputs::prepared_sources`].
    pub fn key_inputs(&self) -> Result<KeyInputs> {
        self.with_steps(self.experiment.train.steps)
    }

    /// The same for another number of steps.
    fn with_steps(&self, steps: u64) -> Result<KeyInputs> {
        let mut experiment = self.experiment.clone();
        experiment.train.steps = steps;
        let prepared = self.inputs.prepared_sources(&experiment)?;
        let sources: Vec<(f64, &KeyInputs)> =
            self.inputs.sources.iter().map(|source| source.weight).zip(&prepared).collect();
        let init = self.inputs.initial.as_ref().map(|initial| initial.digest.as_str());
        Ok(keys::trajectory(&experiment, &sources, init, oss_train::model::vocab_size(&experiment.model)))
    }
}

/// Finds the run of an experiment named `name`, or its future directory. With `new`, the directory is always a new one.
///
/// # Errors
/// `train.steps` was raised although the learning rate depends on it; the run is already past it; a corrupted manifest.
pub fn find(runs: &RunsDir, name: &str, trajectory: TrainingFingerprint<'_>, new: bool) -> Result<Identity> {
    let wanted = trajectory.key_inputs()?;
    let id = wanted.key();
    if new {
        let run = runs.new_run(name, id.short());
        return Ok(Identity { run, manifest: None, trajectory: wanted });
    }
    // A run's id is a prefix of its training fingerprint, so the manifests of other runs need not be read.
    let ids: Vec<Key> = versions(&wanted).map(|version| version.key()).collect();
    let is_meant = |run: &RunDir| ids.iter().any(|key| run.id().starts_with(key.short()));
    if let Some(identity) = newest_of(&known_runs(runs, name, id.short(), is_meant)?, &wanted) {
        check_target(&identity.run, trajectory.experiment)?;
        return Ok(identity);
    }
    if has_derived_end(trajectory.experiment) {
        for (run, manifest) in &known_runs(runs, name, id.short(), |_| true)? {
            refuse_raised_steps(run, manifest, trajectory)?;
        }
    }
    Ok(Identity { run: runs.run(name, id.short()), manifest: None, trajectory: wanted })
}

/// The newest run with the trajectory `wanted`, including runs by earlier versions of the train stage.
fn newest_of(known: &[(RunDir, Manifest)], wanted: &KeyInputs) -> Option<Identity> {
    let same = |(run, manifest): &(RunDir, Manifest)| {
        let trajectory = versions(wanted).find(|version| is_trajectory(manifest, &version.key()))?;
        Some(Identity { run: run.clone(), manifest: Some(manifest.clone()), trajectory })
    };
    let created = |identity: &Identity| identity.manifest.as_ref().map(|manifest| manifest.created);
    known.iter().filter_map(same).max_by_key(created)
}

/// `wanted` under each version of its stage, starting with this program's.
pub fn versions(wanted: &KeyInputs) -> impl Iterator<Item = KeyInputs> + '_ {
    (1..=wanted.version).rev().map(|version| KeyInputs { version, ..wanted.clone() })
}

fn is_trajectory(manifest: &Manifest, key: &Key) -> bool {
    manifest.keys.get(TRAJECTORY) == Some(&key.0)
}

/// Name of the trajectory in the manifest.
pub const TRAJECTORY: &str = "trajectory";

/// The matching runs of that name. A corrupted manifest is an error if it may belong to a matching run, and is skipped
/// otherwise.
fn known_runs(
    runs: &RunsDir,
    name: &str,
    id: &str,
    is_wanted: impl Fn(&RunDir) -> bool,
) -> Result<Vec<(RunDir, Manifest)>> {
    let listed = runs
        .list()
        .with_context(|| format!("cannot read {}", runs.root().display()))
        .hint("check its permissions, or choose another directory with --runs-dir")?;
    let folder = runs.root().join(name);
    let mut known = Vec::new();
    for run in listed.into_iter().filter(|run| run.root().parent() == Some(&folder) && is_wanted(run)) {
        match Manifest::load(&run) {
            Ok(manifest) => known.push((run, manifest)),
            Err(error) if run.id().starts_with(id) => return Err(error.into()),
            Err(error) => tracing::warn!("{}", ErrorReport::of(error)),
        }
    }
    Ok(known)
}

/// Steps of the newest complete checkpoint of `run`.
pub fn steps_taken(run: &RunDir) -> u64 {
    checkpoint::list(&run.checkpoints()).last().map_or(0, |(step, _)| *step)
}

/// The step at which training of `run` ends: `train.steps`, unless it has exhausted `evaluate.patience` before.
pub fn last_step(run: &RunDir, experiment: &Experiment) -> u64 {
    let steps = experiment.train.steps;
    let is_over = |path: &Path| {
        let state = Checkpoint::open(path).ok()?.state().clone();
        let progress: Progress = serde_json::from_value(state).ok()?;
        Some(progress.is_out_of_patience(&experiment.evaluate))
    };
    match checkpoint::list(&run.checkpoints()).last() {
        Some((step, path)) if experiment.evaluate.patience.is_some() && is_over(path) == Some(true) => {
            (*step).min(steps)
        }
        _ => steps,
    }
}

/// The experiment stored in a manifest; `None` if it was written with different keys by another version.
pub fn experiment_of(manifest: &Manifest) -> Option<Experiment> {
    serde_json::from_value(manifest.experiment.clone()).ok()
}

/// Checks that `run` can be resumed up to the steps of `experiment`, which has the same trajectory.
///
/// # Errors
/// It is already past them, or none of its checkpoints can be resumed to that target.
pub fn check_target(run: &RunDir, experiment: &Experiment) -> Result<(), PlanError> {
    let (taken, asked) = (steps_taken(run), experiment.train.steps);
    let run_path = || run.root().to_owned();
    if taken > asked {
        return Err(PlanError::AlreadyPast { run: run_path(), taken, asked });
    }
    if taken > 0 && continuable(run, experiment).is_none() {
        return Err(PlanError::StepsRaised { run: run_path(), old: taken, new: asked, ends_decay: false });
    }
    Ok(())
}

/// Step of the newest complete checkpoint that `experiment`, with the same trajectory, can resume from: every step
/// until then was taken with the same learning rate.
pub fn continuable(run: &RunDir, experiment: &Experiment) -> Option<u64> {
    let usable = |step: u64, path: &Path| {
        let target =
            Checkpoint::open(path).ok().and_then(|checkpoint| checkpoint.state()["target_steps"].as_u64());
        target.is_none_or(|target| same_rates(experiment, target, step))
    };
    let mut newest_first = checkpoint::list(&run.checkpoints()).into_iter().rev();
    newest_first.find(|(step, path)| usable(*step, path)).map(|(step, _)| step)
}

/// Whether the first `taken` steps have the same learning rates as in a run of `target` steps. Within a trajectory,
/// only the wsd decay depends on the target.
fn same_rates(experiment: &Experiment, target: u64, taken: u64) -> bool {
    let Experiment { schedule, train, .. } = experiment;
    let lr_at = |target, step| lr_multiplier(schedule, target, step);
    schedule.kind != ScheduleKind::Wsd
        || target == train.steps
        || (0..taken).all(|step| lr_at(target, step) == lr_at(train.steps, step))
}

/// Whether the end of the learning-rate decay is derived from the number of steps.
pub fn has_derived_end(experiment: &Experiment) -> bool {
    matches!(experiment.schedule.kind, ScheduleKind::Cosine | ScheduleKind::Linear)
        && experiment.schedule.decay_steps.is_none()
}

/// Refuses `trajectory`, whose decay end is derived, if `manifest` has the same trajectory with fewer steps and a
/// derived decay end.
fn refuse_raised_steps(run: &RunDir, manifest: &Manifest, trajectory: TrainingFingerprint<'_>) -> Result<()> {
    let Some(before) = experiment_of(manifest) else { return Ok(()) };
    let (old, new) = (before.train.steps, trajectory.experiment.train.steps);
    if !(has_derived_end(&before) && old < new) {
        return Ok(());
    }
    let at_old = trajectory.with_steps(old)?;
    let same = versions(&at_old).any(|version| is_trajectory(manifest, &version.key()));
    if same && steps_taken(run) > 0 {
        return Err(PlanError::StepsRaised { run: run.root().to_owned(), old, new, ends_decay: true }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::inputs::Source;
    use oss_config::{Preset, Schedule};

    fn manifest(trajectory: &KeyInputs, id: &str) -> (RunDir, Manifest) {
        let mut manifest = Manifest::new(id, "a", serde_json::Value::Null);
        manifest.keys.insert(TRAJECTORY.to_owned(), trajectory.key().0);
        (RunDir::new(format!("runs/a/{id}")), manifest)
    }

    #[test]
    fn a_run_of_an_earlier_version_is_found() {
        let then = KeyInputs { version: 1, ..KeyInputs::default() };
        let now = KeyInputs { version: 3, ..then.clone() };
        let found = newest_of(&[manifest(&then, "old")], &now).unwrap();
        assert_eq!((found.run.id().as_str(), found.trajectory.version), ("old", 1));
        assert!(
            newest_of(&[manifest(&now, "new")], &then).is_none(),
            "a run by a later program is a different run"
        );
    }

    #[test]
    fn the_newest_copy_is_chosen() {
        let key = KeyInputs { version: 1, ..KeyInputs::default() };
        let (first, mut second) = (manifest(&key, "x"), manifest(&key, "x-2"));
        second.1.created = first.1.created + chrono::TimeDelta::seconds(1);
        assert_eq!(newest_of(&[second, first], &key).unwrap().run.id(), "x-2");
    }

    fn experiment(kind: ScheduleKind, steps: u64) -> Experiment {
        let mut experiment = Experiment { model: Preset::Tiny.model(), ..Experiment::default() };
        experiment.model.vocab_size = Some(257);
        experiment.schedule = Schedule { kind, warmup_steps: 10, ..Schedule::default() };
        experiment.train.steps = steps;
        experiment
    }

    #[test]
    fn rates_agree_up_to_the_earlier_decay_of_wsd() {
        let long = experiment(ScheduleKind::Wsd, 200);
        assert!(same_rates(&long, 100, 80), "the decay over the last fifth begins after step 80");
        // The first step of a decay still has the peak.
        assert!(!same_rates(&long, 100, 82));
        assert!(same_rates(&long, 200, 199));
        assert!(same_rates(&experiment(ScheduleKind::Constant, 200), 100, 100));
    }

    #[test]
    fn the_trajectory_includes_the_mix() {
        let identity = oss_data::sources::Identity::Files { files: Vec::new() };
        let source = |weight| Source { name: "a".into(), weight, identity: identity.clone() };
        let key = |weights: &[f64]| {
            let sources = weights.iter().map(|weight| source(*weight)).collect();
            let inputs = Inputs { sources, validation: None, tokenizer: "bytes".into(), initial: None };
            let experiment = experiment(ScheduleKind::Constant, 10);
            TrainingFingerprint { experiment: &experiment, inputs: &inputs }.key_inputs().unwrap().key()
        };
        assert_eq!(key(&[1.0]), key(&[2.0]), "alone, a weight means nothing");
        assert_ne!(key(&[1.0, 1.0]), key(&[1.0, 2.0]));
    }
}
