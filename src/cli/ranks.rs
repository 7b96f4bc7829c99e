//! Ranks of one command: who this process is among them, and starting the others.

use std::ffi::OsString;
use std::fmt::Debug;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::failure::{Status, Usage};
use crate::distributed::{
    Fingerprint, Launch, Outcome, Patience, Placement, World, supervise, tie_to_launcher,
};
use crate::experiment::Experiment;
use crate::interrupt;
use crate::runner;
use crate::torch::Store;

/// Runs `work` as one of the ranks that `experiment` asks for, or starts them all and watches over them.
///
/// `task` is what has to be the same on every rank beside the experiment. A process that torchrun or SLURM has started is
/// one of their ranks; one that is alone becomes the launcher where the experiment asks for more than one rank.
///
/// # Errors
/// The work's own; ranks that cannot meet; a rank that failed ([`Ended`]).
pub fn on_ranks(
    experiment: &Experiment,
    task: &impl Debug,
    work: impl FnOnce(&World) -> Result<()>,
) -> Result<()> {
    let sharding = &experiment.sharding;
    let Some(placement) = Placement::of(&|name| std::env::var(name).ok())? else {
        return if sharding.ranks == 1 { work(&World::alone()) } else { launch(experiment) };
    };
    if placement.launched {
        tie_to_launcher().context("cannot tie this rank to its launcher")?;
    }
    if placement.world_size as u64 != sharding.ranks {
        return Err(Usage(format!(
            "{} ranks were started, but sharding.ranks = {}; start as many, or add --set sharding.ranks={}",
            placement.world_size, sharding.ranks, placement.world_size
        ))
        .into());
    }
    let timeout = Duration::from_secs(sharding.timeout_seconds);
    let fingerprint = fingerprint(experiment, task)?;
    let world = World::join(&placement, &fingerprint, timeout)?;
    let outcome = work(&world);
    if let Err(error) = &outcome {
        world.give_up(error);
    }
    world.leave();
    outcome
}

fn fingerprint(experiment: &Experiment, task: &impl Debug) -> Result<Fingerprint> {
    let program = std::env::current_exe().context("this program cannot find its own file")?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let task = format!("{}\n{task:?}", serde_json::to_string(experiment)?);
    Ok(Fingerprint {
        program: hasher.finalize().to_hex().to_string(),
        task: blake3::hash(task.as_bytes()).to_hex().to_string(),
    })
}

/// The ranks ended, and not well; they have said why.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Ended {
    message: String,
    /// The exit status that it deserves.
    pub status: Status,
}

fn launch(experiment: &Experiment) -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let port = listener.local_addr()?.port();
    let store = Store::serve(listener, Duration::from_secs(experiment.sharding.timeout_seconds))?;
    let launch = Launch {
        ranks: experiment.sharding.ranks as usize,
        port,
        restart: 0,
        id: format!("{}-{port}", std::process::id()),
        threads_set: experiment.train.threads.is_some(),
        deterministic: experiment.run.deterministic,
    };
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let program = std::env::current_exe()?;
    let commands = (0..launch.ranks).map(|rank| {
        let mut command = Command::new(&program);
        command.args(&arguments).envs(launch.environment(rank, &|name| std::env::var(name).ok()));
        command
    });
    let outcome = supervise(commands.collect(), Patience::default(), interrupt::requested)?;
    let run = store.get(&format!("oss-run/{}/{}", launch.restart, runner::RUN));
    tracing::debug!("{run:?}");
    let (message, status) = match outcome {
        Outcome::Done => return Ok(()),
        Outcome::Stopped => ("the ranks stopped on request".to_owned(), Status::Stopped),
        Outcome::Wrong(failure) => (failure.to_string(), Status::Wrong),
        Outcome::Failed(failure) => (failure.to_string(), Status::Failed),
    };
    Err(Ended { message, status }.into())
}
