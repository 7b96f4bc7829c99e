//! Runs a command on one or several ranks, and finds out which rank this process is.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::launch::{launch, own_arguments};
use crate::runner;
use oss_config::Experiment;
use oss_config::error::UserError;
use oss_train::distributed::{Fingerprint, RankEnv, World, exit_with_parent};

/// Builds the command line that resumes the run in this directory.
pub type Resumed<'a> = dyn Fn(&Path) -> Vec<OsString> + 'a;

/// A command that runs on several ranks.
pub struct Task<'a> {
    /// Sets the number of ranks.
    pub experiment: &'a Experiment,
    /// Must be the same on every rank, like the experiment.
    pub arguments: &'a dyn Debug,
    /// Command line for a restart after a rank died in a run; `None` repeats the original one.
    pub resumed: Option<&'a Resumed<'a>>,
}

/// Runs `work` as one of the task's ranks, or starts all ranks and monitors them.
///
/// A process started by torchrun or SLURM is one of their ranks. Otherwise this process becomes the launcher if the
/// experiment has more than one rank.
///
/// # Errors
/// Those of `work`; the ranks cannot connect; a rank failed.
pub fn on_ranks(task: &Task<'_>, work: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    match rank_env()? {
        Some(rank_env) => as_rank(task, &rank_env, work),
        None if task.experiment.sharding.ranks == 1 => work(&World::alone()),
        None => start(task),
    }
}

/// Like [`on_ranks`], for work that rank 0 leads and the others [`follow`](runner::follow): `plan` decides once what to
/// do, and `lead` does it. If `has_work` is false, this process handles the plan alone without starting ranks. Returns
/// the result if this process led.
///
/// # Errors
/// Those of [`on_ranks`] and of `plan`.
pub fn led<P, T>(
    task: &Task<'_>,
    plan: impl FnOnce() -> Result<P>,
    has_work: impl FnOnce(&P) -> bool,
    lead: impl FnOnce(P, &World) -> Result<T>,
) -> Result<Option<T>> {
    let Some(rank_env) = rank_env()? else {
        let planned = plan()?;
        if task.experiment.sharding.ranks == 1 || !has_work(&planned) {
            return lead(planned, &World::alone()).map(Some);
        }
        drop(planned);
        return start(task).map(|()| None);
    };
    as_rank(task, &rank_env, |world| match world.is_leader() {
        true => runner::dismiss(plan().and_then(|planned| lead(planned, world)), world).map(Some),
        false => runner::follow(world).map(|()| None),
    })
}

fn rank_env() -> Result<Option<RankEnv>> {
    Ok(RankEnv::from_env(&|name| std::env::var(name).ok())?)
}

/// Starts all ranks and monitors them.
fn start(task: &Task<'_>) -> Result<()> {
    let again = |run: &Path| task.resumed.map_or_else(own_arguments, |resumed| resumed(run));
    launch(task.experiment, again)
}

/// Runs `work` as this process's rank.
fn as_rank<T>(task: &Task<'_>, rank_env: &RankEnv, work: impl FnOnce(&World) -> Result<T>) -> Result<T> {
    let sharding = &task.experiment.sharding;
    if rank_env.launched {
        exit_with_parent().context("cannot make this rank exit with its launcher")?;
    }
    if rank_env.world_size as u64 != sharding.ranks {
        return Err(UserError::wrong(format!(
            "{} ranks were started, but sharding.ranks is {}",
            rank_env.world_size, sharding.ranks
        ))
        .hint(format!(
            "start as many ranks as the experiment has, or pass --set sharding.ranks={}",
            rank_env.world_size
        ))
        .into());
    }
    let timeout = Duration::from_secs(sharding.timeout_seconds);
    let fingerprint = fingerprint(task.experiment, task.arguments)?;
    let world = World::join(rank_env, &fingerprint, timeout)?;
    let outcome = work(&world);
    if let Err(error) = &outcome {
        world.report_failure(error);
    }
    world.leave();
    outcome
}

fn fingerprint(experiment: &Experiment, arguments: &dyn Debug) -> Result<Fingerprint> {
    let program = std::env::current_exe().context("cannot find the path of this executable")?;
    let mut hasher = blake3::Hasher::new();
    // Not memory-mapped, since the whole file would count toward this rank's memory.
    File::open(&program)
        .and_then(|file| hasher.update_reader(file).map(drop))
        .with_context(|| format!("cannot read {}", program.display()))?;
    let task = format!("{}\n{arguments:?}", serde_json::to_string(experiment)?);
    Ok(Fingerprint {
        program: hasher.finalize().to_hex().to_string(),
        task: blake3::hash(task.as_bytes()).to_hex().to_string(),
    })
}
