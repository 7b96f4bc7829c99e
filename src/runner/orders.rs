//! What the leader tells the other ranks to do, and how they do it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::compute;
use super::trained::graph_of;
use crate::stages::sample::Weights;
use oss_config::error::Stopped;
use oss_config::error::UserError;
use oss_runs::monitor;
use oss_runs::run_dir::RunDir;
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::World;

/// One piece of work for all ranks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Take part in the training of the run.
    Train {
        /// Its directory.
        run: PathBuf,
        /// Of its manifest, so that a rank which sees another directory under the same path is found.
        manifest: String,
        /// Pause after this step.
        stop_at_step: Option<u64>,
    },
    /// Take part in scoring a checkpoint on the run's validation text.
    Evaluate {
        /// The run's directory.
        run: PathBuf,
        /// The checkpoint's.
        checkpoint: PathBuf,
    },
    /// Take part in continuing the run's prompts.
    Sample {
        /// The run's directory.
        run: PathBuf,
        /// The checkpoint's.
        checkpoint: PathBuf,
    },
    /// All is done.
    Leave,
    /// The leader was asked to stop between two pieces of work.
    Stop,
}

/// What every rank but the leader does: follow orders until there are no more.
///
/// # Errors
/// As the work itself; the leader failed; a stop on request.
pub fn follow(world: &World) -> Result<()> {
    loop {
        match world.share::<Order>(None)? {
            Order::Train { run, manifest, stop_at_step } => {
                let run = open(world, run)?;
                world.agree(same_directory(&run, &manifest))?;
                let outcome = compute::train(&graph_of(&run)?, world, stop_at_step)?;
                if !outcome.finished {
                    return Err(Stopped.into());
                }
            }
            Order::Evaluate { run, checkpoint } => {
                let graph = graph_of(&open(world, run)?)?;
                compute::evaluate(&graph, world, Checkpoint::open(&checkpoint)?)?;
            }
            Order::Sample { run, checkpoint } => {
                let graph = graph_of(&open(world, run)?)?;
                let settings = &graph.experiment.sample;
                compute::sample(&graph, world, Checkpoint::open(&checkpoint)?, settings, Weights::AsTrained)?;
            }
            Order::Leave => return Ok(()),
            Order::Stop => return Err(Stopped.into()),
        }
    }
}

fn open(world: &World, path: PathBuf) -> Result<RunDir> {
    let run = RunDir::new(path);
    let log = run.log(world.rank());
    // A rank without its directory is found by what it is asked to do next; here only the log would be missing.
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

/// Whether this rank sees the directory that the leader writes.
///
/// # Errors
/// It does not.
pub fn same_directory(run: &RunDir, manifest: &str) -> Result<()> {
    let seen = manifest_digest(run).ok();
    let host = sysinfo::System::host_name().unwrap_or_default();
    ensure!(
        seen.as_deref() == Some(manifest),
        UserError::failed(format!(
            "{host} does not see the run directory {} as rank 0 does",
            run.root().display()
        ))
        .hint("put --runs-dir on a file system that all machines share")
    );
    Ok(())
}
