//! The weights that evaluation, sampling and export read.

use anyhow::Result;
use tch::Kind;

use oss_config::Model;
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::{Mesh, Shards, World};

/// Loads the weights of a checkpoint, sharded over the ranks.
///
/// # Errors
/// The checkpoint is corrupted, on any rank.
pub fn load_weights<'a>(
    world: &World,
    mesh: &'a Mesh,
    model: &Model,
    checkpoint: &mut Checkpoint,
    kind: Kind,
) -> Result<Shards<'a>> {
    if world.size() > 1 {
        // Files read as a whole are verified while reading; with another number of ranks, a shard is only part of a
        // file.
        world.all_ok(checkpoint.verify_part(world.rank(), world.size()).map_err(Into::into))?;
    }
    world.all_ok(Shards::load(model, checkpoint, mesh, kind))
}
