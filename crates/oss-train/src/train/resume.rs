//! Selects the checkpoint to resume from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::progress::Progress;
use crate::checkpoint::{self, Checkpoint};
use crate::distributed::World;
use crate::optimizer::schedule;
use oss_config::{Experiment, ScheduleKind};

/// The latest valid checkpoint from which the experiment's target can be reached, the same on every rank. Each rank
/// verifies a subset of the files.
///
/// A wsd decay is specific to its target: with a different target, training resumes from before the decay.
///
/// # Errors
/// Fails if there are checkpoints but all of them are corrupted.
pub fn checkpoint_to_resume(
    world: &World,
    dir: &Path,
    experiment: &Experiment,
) -> Result<Option<Checkpoint>> {
    let candidates = world.broadcast(world.is_leader().then(|| checkpoint::candidates(dir)))?;
    let Some(newest) = newest_whole(world, dir, &candidates)? else { return Ok(None) };
    if can_reach_target(&newest, experiment)? {
        return Ok(Some(newest));
    }
    let suitable = |path: &PathBuf| {
        Checkpoint::open(path)
            .is_ok_and(|checkpoint| can_reach_target(&checkpoint, experiment).unwrap_or(false))
    };
    let mine = || candidates.iter().filter(|path| suitable(path)).cloned().collect::<Vec<_>>();
    let earlier = world.broadcast(world.is_leader().then(mine))?;
    newest_whole(world, dir, &earlier)
}

fn newest_whole(world: &World, dir: &Path, candidates: &[PathBuf]) -> Result<Option<Checkpoint>> {
    checkpoint::newest_whole(dir, candidates, (world.rank(), world.size()), |complaint| {
        Ok::<_, anyhow::Error>(world.all(&complaint)?.into_iter().flatten().next())
    })
}

/// Whether training can resume from `checkpoint` and reach the experiment's target.
///
/// # Errors
/// Fails if the training state cannot be read.
pub fn can_reach_target(checkpoint: &Checkpoint, experiment: &Experiment) -> Result<bool> {
    let progress: Progress = serde_json::from_value(checkpoint.state().clone())
        .with_context(|| format!("reading the training state in {}", checkpoint.path().display()))?;
    let target = experiment.train.steps;
    Ok(match experiment.schedule.kind {
        ScheduleKind::Wsd if progress.target_steps != target => {
            progress.step <= schedule::decay_start(&experiment.schedule, progress.target_steps)
                && progress.step <= schedule::decay_start(&experiment.schedule, target)
        }
        _ => progress.step <= target,
    })
}
