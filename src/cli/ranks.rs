//! Ranks of one command: who this process is among them.

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
use oss_train::distributed::{Fingerprint, Placement, World, tie_to_launcher};

/// Makes the command line that goes on with the run in this directory.
pub type Resumed<'a> = dyn Fn(&Path) -> Vec<OsString> + 'a;

/// A command that several ranks do together.
pub struct Task<'a> {
    /// Says how many.
    pub experiment: &'a Experiment,
    /// What has to be the same on every rank beside the experiment.
    pub arguments: &'a dyn Debug,
    /// What is started after a rank has died in a run; the same again unless given.
    pub resumed: Option<&'a Resumed<'a>>,
}

/// Runs `work` as one of the ranks that the task asks for, or starts them all and watches over them.
///
/// A process that torchrun or SLURM has started is one of their ranks; one that is alone becomes the launcher where the
/// experiment asks for more than one rank.
///
/// # Errors
/// The work's own; ranks that cannot meet; a rank that failed.
pub fn on_ranks(task: &Task<'_>, work: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    match placement()? {
        Some(placement) => as_rank(task, &placement, work),
        None if task.experiment.sharding.ranks == 1 => work(&World::alone()),
        None => start(task),
    }
}

/// As [`on_ranks`], for what one rank leads and the others [`follow`](runner::follow): `plan` finds out what there is to
/// do, once, and `lead` does it. What does not `have_work` is not worth starting ranks for: this process does it alone.
/// Returns what came of it, where this process led.
///
/// # Errors
/// As [`on_ranks`], and as `plan`.
pub fn led<P, T>(
    task: &Task<'_>,
    plan: impl FnOnce() -> Result<P>,
    has_work: impl FnOnce(&P) -> bool,
    lead: impl FnOnce(P, &World) -> Result<T>,
) -> Result<Option<T>> {
    let Some(placement) = placement()? else {
        let planned = plan()?;
        if task.experiment.sharding.ranks == 1 || !has_work(&planned) {
            return lead(planned, &World::alone()).map(Some);
        }
        drop(planned);
        return start(task).map(|()| None);
    };
    as_rank(task, &placement, |world| match world.is_leader() {
        true => runner::dismiss(plan().and_then(|planned| lead(planned, world)), world).map(Some),
        false => runner::follow(world).map(|()| None),
    })
}

fn placement() -> Result<Option<Placement>> {
    Ok(Placement::of(&|name| std::env::var(name).ok())?)
}

/// Starts all ranks and watches over them.
fn start(task: &Task<'_>) -> Result<()> {
    let again = |run: &Path| task.resumed.map_or_else(own_arguments, |resumed| resumed(run));
    launch(task.experiment, again)
}

/// Does `work` as the rank that this process is.
fn as_rank<T>(task: &Task<'_>, placement: &Placement, work: impl FnOnce(&World) -> Result<T>) -> Result<T> {
    let sharding = &task.experiment.sharding;
    if placement.launched {
        tie_to_launcher().context("cannot tie this rank to its launcher")?;
    }
    if placement.world_size as u64 != sharding.ranks {
        return Err(UserError::wrong(format!(
            "{} ranks were started, but sharding.ranks = {}",
            placement.world_size, sharding.ranks
        ))
        .hint(format!("start as many, or add --set sharding.ranks={}", placement.world_size))
        .into());
    }
    let timeout = Duration::from_secs(sharding.timeout_seconds);
    let fingerprint = fingerprint(task.experiment, task.arguments)?;
    let world = World::join(placement, &fingerprint, timeout)?;
    let outcome = work(&world);
    if let Err(error) = &outcome {
        world.give_up(error);
    }
    world.leave();
    outcome
}

fn fingerprint(experiment: &Experiment, arguments: &dyn Debug) -> Result<Fingerprint> {
    let program = std::env::current_exe().context("this program cannot find its own file")?;
    let mut hasher = blake3::Hasher::new();
    // Not mapped: the whole file would count as this rank's memory.
    File::open(&program)
        .and_then(|file| hasher.update_reader(file).map(drop))
        .with_context(|| format!("cannot read {}", program.display()))?;
    let task = format!("{}\n{arguments:?}", serde_json::to_string(experiment)?);
    Ok(Fingerprint {
        program: hasher.finalize().to_hex().to_string(),
        task: blake3::hash(task.as_bytes()).to_hex().to_string(),
    })
}
