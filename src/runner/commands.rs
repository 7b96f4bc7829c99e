//! Commands from the leader to the other ranks.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::compute;
use super::loaded_run::graph_of;
use super::session::is_stop;
use crate::stages::sample::Weights;
use oss_config::error::{Stopped, UserError};
use oss_runs::monitor;
use oss_runs::run_dir::RunDir;
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::World;

/// A task for all ranks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Train the run.
    Train {
        /// Its directory.
        run: PathBuf,
        /// Digest of its manifest, to detect a rank that sees a different directory under the same path.
        manifest: String,
        /// Stop after this step.
        stop_at_step: Option<u64>,
    },
    /// Evaluate a checkpoint on the run's validation set.
    Evaluate {
        /// The run directory.
        run: PathBuf,
        /// The checkpoint directory.
        checkpoint: PathBuf,
    },
    /// Sample continuations of the run's prompts.
    Sample {
        /// The run directory.
        run: PathBuf,
        /// The checkpoint directory.
        checkpoint: PathBuf,
    },
    /// Everything is done.
    Leave,
    /// The leader was asked to stop between two tasks.
    Stop,
}

/// Executes commands until there are no more; called by every rank except the leader.
///
/// # Errors
/// Those of the task; the leader failed; stopped on request.
pub fn follow(world: &World) -> Result<()> {
    loop {
        match world.broadcast::<Task>(None)? {
            Task::Train { run, manifest, stop_at_step } => {
                let run = open(world, run)?;
                world.all_ok(same_directory(&run, &manifest))?;
                let outcome = compute::train(&graph_of(&run)?, world, stop_at_step)?;
                if !outcome.finished {
                    return Err(Stopped.into());
                }
            }
            Task::Evaluate { run, checkpoint } => {
                let graph = graph_of(&open(world, run)?)?;
                compute::evaluate(&graph, world, Checkpoint::open(&checkpoint)?)?;
            }
            Task::Sample { run, checkpoint } => {
                let graph = graph_of(&open(world, run)?)?;
                let settings = &graph.experiment.sample;
                compute::sample(&graph, world, Checkpoint::open(&checkpoint)?, settings, Weights::AsTrained)?;
            }
            Task::Leave => return Ok(()),
            Task::Stop => return Err(Stopped.into()),
        }
    }
}

fn open(world: &World, path: PathBuf) -> Result<RunDir> {
    let run = RunDir::new(path);
    let log = run.log(world.rank());
    // A missing run directory is detected by the next command; here, only the log would be missing.
    if let Err(error) = monitor::log_to(&log) {
        tracing::warn!("cannot open {}: {error}", log.display());
    }
    Ok(run)
}

/// Digest of a run's manifest.
///
/// # Errors
/// It cannot be read.
pub fn manifest_digest(run: &RunDir) -> Result<String> {
    let path = run.manifest();
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// Checks that this rank sees the directory that the leader writes to.
///
/// # Errors
/// It sees a different one.
pub fn same_directory(run: &RunDir, manifest: &str) -> Result<()> {
    let seen = manifest_digest(run).ok();
    let host = sysinfo::System::host_name().unwrap_or_default();
    ensure!(
        seen.as_deref() == Some(manifest),
        UserError::failed(format!(
            "{host} sees a different run directory at {} than rank 0",
            run.root().display()
        ))
        .hint("use a --runs-dir on a file system shared by all machines")
    );
    Ok(())
}

/// Key under which the launcher finds the run to resume after a rank has died.
pub const RUN: &str = "run";

/// Dismisses the other ranks after the leader's part has ended with `outcome`.
///
/// # Errors
/// Those of the leader's part.
pub fn dismiss<T>(outcome: Result<T>, world: &World) -> Result<T> {
    let order = match &outcome {
        Ok(_) => Task::Leave,
        Err(error) if is_stop(error) => Task::Stop,
        // The other ranks learn of a failure from `World::report_failure`.
        Err(_) => return outcome,
    };
    // Ranks that stopped in the middle of a task no longer wait for commands, and may have exited.
    let _ = world.broadcast(Some(order));
    outcome
}
