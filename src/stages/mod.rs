//! One thin file per stage: prepare, train, evaluate, sample, export. Each takes its inputs, does its work with the
//! layers below, and returns its outputs. Stages do not depend on each other.

pub mod evaluate;
pub mod export;
pub mod prepare;
pub mod sample;
pub mod train;

use anyhow::Result;
use tch::Kind;

use oss_config::Model;
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::{Mesh, Shards, World};

/// Loads the weights of a checkpoint, sharded over the ranks.
///
/// # Errors
/// The checkpoint is corrupted, on any rank.
fn weights<'a>(
    world: &World,
    mesh: &'a Mesh,
    model: &Model,
    checkpoint: &mut Checkpoint,
    kind: Kind,
) -> Result<Shards<'a>> {
    if world.size() > 1 {
        // Files read as a whole are verified while reading; with another number of ranks, a shard is only part of a
        // file.
        world.all_ok(checkpoint.verify_share(world.rank(), world.size()).map_err(Into::into))?;
    }
    world.all_ok(Shards::load(model, checkpoint, mesh, kind))
}
