//! Ranks of one command: who this process is among them.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::launch::{launch, own_arguments};
use crate::distributed::{Fingerprint, Placement, World, tie_to_launcher};
use crate::error::UserError;
use crate::experiment::Experiment;

/// Makes the command line that goes on with the run in this directory.
pub type Resumed<'a> = dyn Fn(&Path) -> Vec<OsString> + 'a;

/// A command that several ranks do together.
pub struct Task<'a> {
    /// Says how many.
    pub experiment: &'a Experiment,
    /// What has to be the same on every rank beside the experiment.
    pub arguments: &'a dyn Debug,
    /// Whether there is anything to compute; what is not worth starting ranks for, one process does.
    pub has_work: &'a dyn Fn() -> Result<bool>,
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
    let sharding = &task.experiment.sharding;
    let Some(placement) = Placement::of(&|name| std::env::var(name).ok())? else {
        if sharding.ranks == 1 || !(task.has_work)()? {
            return work(&World::alone());
        }
        let again = |run: &Path| task.resumed.map_or_else(own_arguments, |resumed| resumed(run));
        return launch(task.experiment, again);
    };
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
    let world = World::join(&placement, &fingerprint, timeout)?;
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
