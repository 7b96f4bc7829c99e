//! Which run an experiment is: the run id is the first digits of the trajectory key.
//!
//! The same experiment finds its run again; another trajectory is another directory; `--new` makes a copy. Raising
//! `train.steps` where the learning rate's end was derived from it gives another key, and would quietly start another
//! run: such a run is looked for, and refused instead.

use std::path::Path;

use super::error::PlanError;
use super::inputs::Inputs;
use super::keys::{self, Key, KeyInputs};
use crate::checkpoint::{self, Checkpoint};
use crate::experiment::{Experiment, ScheduleKind};
use crate::run_dir::{Manifest, RunDir, RunsDir};
use crate::train::schedule;

/// The run that an experiment is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its directory, which need not exist.
    pub run: RunDir,
    /// What happened to it; none for a run to come.
    pub manifest: Option<Manifest>,
    /// Its trajectory, under the version of the train stage that it was started with.
    pub trajectory: KeyInputs,
}

/// What of an experiment decides its trajectory.
#[derive(Clone, Copy, Debug)]
pub struct Trajectory<'a> {
    /// The experiment, with its vocabulary filled in.
    pub experiment: &'a Experiment,
    /// What it reads.
    pub inputs: &'a Inputs,
}

impl Trajectory<'_> {
    /// The trajectory's key and what is in it, under this program's version of the train stage.
    ///
    /// # Errors
    /// As [`Inputs::prepared_sources`].
    pub fn key_inputs(&self) -> anyhow::Result<KeyInputs> {
        self.with_steps(self.experiment.train.steps)
    }

    /// The same if the experiment had so many steps.
    fn with_steps(&self, steps: u64) -> anyhow::Result<KeyInputs> {
        let mut experiment = self.experiment.clone();
        experiment.train.steps = steps;
        let prepared = self.inputs.prepared_sources(&experiment)?;
        let sources: Vec<(f64, &KeyInputs)> =
            self.inputs.sources.iter().map(|source| source.weight).zip(&prepared).collect();
        let init = self.inputs.initial.as_ref().map(|initial| initial.digest.as_str());
        Ok(keys::trajectory(&experiment, &sources, init, crate::model::vocab_size(&experiment.model)))
    }
}

/// Finds the run of an experiment named `name`, or the place for it. With `new` the place is always a new one.
///
/// # Errors
/// Steps raised where the learning rate depends on them; a run that is further than asked; a damaged manifest.
pub fn find(runs: &RunsDir, name: &str, trajectory: Trajectory<'_>, new: bool) -> anyhow::Result<Identity> {
    let wanted = trajectory.key_inputs()?;
    let id = wanted.key();
    if new {
        let run = runs.new_run(name, id.short());
        return Ok(Identity { run, manifest: None, trajectory: wanted });
    }
    let known = known_runs(runs, name, id.short())?;
    let same =
        |manifest: &Manifest| versions(&wanted).find(|version| is_trajectory(manifest, &version.key()));
    let newest = known
        .iter()
        .filter_map(|(run, manifest)| Some((run, manifest, same(manifest)?)))
        .max_by_key(|(_, manifest, _)| manifest.created);
    if let Some((run, manifest, trajectory_then)) = newest {
        check_target(run, trajectory.experiment)?;
        let (run, manifest) = (run.clone(), Some(manifest.clone()));
        return Ok(Identity { run, manifest, trajectory: trajectory_then });
    }
    for (run, manifest) in &known {
        refuse_raised_steps(run, manifest, trajectory)?;
    }
    Ok(Identity { run: runs.run(name, id.short()), manifest: None, trajectory: wanted })
}

/// What `wanted` was under each version of its stage, this program's first.
pub fn versions(wanted: &KeyInputs) -> impl Iterator<Item = KeyInputs> + '_ {
    (1..=wanted.version).rev().map(|version| KeyInputs { version, ..wanted.clone() })
}

fn is_trajectory(manifest: &Manifest, key: &Key) -> bool {
    manifest.keys.get(TRAJECTORY) == Some(&key.0)
}

/// Name of the trajectory's key in the manifest.
pub const TRAJECTORY: &str = "trajectory";

/// The runs of that name. A damaged manifest is an error where it may be the run asked for, and passed over elsewhere.
fn known_runs(runs: &RunsDir, name: &str, id: &str) -> Result<Vec<(RunDir, Manifest)>, PlanError> {
    let listed = runs.list().map_err(|source| PlanError::Runs { path: runs.root().to_owned(), source })?;
    let folder = runs.root().join(name);
    let mut known = Vec::new();
    for run in listed.into_iter().filter(|run| run.root().parent() == Some(&folder)) {
        match Manifest::load(&run) {
            Ok(manifest) => known.push((run, manifest)),
            Err(error) if run.id().starts_with(id) => return Err(error.into()),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    Ok(known)
}

/// Steps of the newest complete checkpoint of `run`.
pub fn steps_taken(run: &RunDir) -> u64 {
    checkpoint::list(&run.checkpoints()).last().map_or(0, |(step, _)| *step)
}

/// The experiment that a manifest keeps; none if another program's experiments have other keys.
pub fn experiment_of(manifest: &Manifest) -> Option<Experiment> {
    serde_json::from_value(manifest.experiment.clone()).ok()
}

/// Checks that `run` can go on to the steps of `experiment`, of the same trajectory.
///
/// # Errors
/// It is further already, or none of its checkpoints leads there.
pub fn check_target(run: &RunDir, experiment: &Experiment) -> Result<(), PlanError> {
    let (taken, asked) = (steps_taken(run), experiment.train.steps);
    let run_path = || run.root().to_owned();
    if taken > asked {
        return Err(PlanError::AlreadyPast { run: run_path(), taken, asked });
    }
    if taken > 0 && continuable(run, experiment).is_none() {
        return Err(PlanError::StepsRaised { run: run_path(), old: taken, new: asked });
    }
    Ok(())
}

/// Step of the newest complete checkpoint that `experiment`, of the same trajectory, can go on from: the learning rate
/// of every step taken until then is the one it asks for.
pub fn continuable(run: &RunDir, experiment: &Experiment) -> Option<u64> {
    let usable = |step: u64, path: &Path| {
        let target =
            Checkpoint::open(path).ok().and_then(|checkpoint| checkpoint.state()["target_steps"].as_u64());
        target.is_none_or(|target| same_rates(experiment, target, step))
    };
    let mut newest_first = checkpoint::list(&run.checkpoints()).into_iter().rev();
    newest_first.find(|(step, path)| usable(*step, path)).map(|(step, _)| step)
}

/// Whether the first `taken` steps have the learning rates of a run of `target` steps. Of one trajectory, only wsd's
/// decay moves with the target.
fn same_rates(experiment: &Experiment, target: u64, taken: u64) -> bool {
    let Experiment { schedule, train, .. } = experiment;
    let share = |steps, step| schedule::share(schedule, steps, step);
    schedule.kind != ScheduleKind::Wsd
        || target == train.steps
        || (0..taken).all(|step| share(target, step) == share(train.steps, step))
}

/// Refuses `trajectory` if `manifest` is the same one with fewer steps, and its learning rate was derived from them.
fn refuse_raised_steps(run: &RunDir, manifest: &Manifest, trajectory: Trajectory<'_>) -> anyhow::Result<()> {
    let Some(before) = experiment_of(manifest) else { return Ok(()) };
    let derived = |experiment: &Experiment| {
        matches!(experiment.schedule.kind, ScheduleKind::Cosine | ScheduleKind::Linear)
            && experiment.schedule.decay_steps.is_none()
    };
    let (old, new) = (before.train.steps, trajectory.experiment.train.steps);
    if !(derived(&before) && derived(trajectory.experiment) && old < new) {
        return Ok(());
    }
    let at_old = trajectory.with_steps(old)?;
    let same = versions(&at_old).any(|version| is_trajectory(manifest, &version.key()));
    if same && steps_taken(run) > 0 {
        return Err(PlanError::StepsRaised { run: run.root().to_owned(), old, new }.into());
    }
    Ok(())
}
