//! Which checkpoint training goes on from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::progress::Progress;
use crate::checkpoint::{self, Checkpoint};
use crate::distributed::World;
use crate::optimizer::schedule;
use oss_config::{Experiment, ScheduleKind};

/// The newest whole checkpoint that leads to the experiment's target, the same on every rank; each verifies its share.
///
/// A wsd decay belongs to one target: with another one, training goes on from before the decay.
///
/// # Errors
/// There are checkpoints, and all are damaged.
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

/// Whether training can go on from `checkpoint` to the experiment's target.
///
/// # Errors
/// Its training state cannot be read.
pub fn can_reach_target(checkpoint: &Checkpoint, experiment: &Experiment) -> Result<bool> {
    let progress: Progress = serde_json::from_value(checkpoint.state().clone())
        .with_context(|| format!("the training state in {}", checkpoint.path().display()))?;
    let target = experiment.train.steps;
    Ok(match experiment.schedule.kind {
        ScheduleKind::Wsd if progress.target_steps != target => {
            progress.step <= schedule::decay_start(&experiment.schedule, progress.target_steps)
                && progress.step <= schedule::decay_start(&experiment.schedule, target)
        }
        _ => progress.step <= target,
    })
}
