//! One thin file a stage: prepare, train, evaluate, sample, export. Each takes what it reads, does its work with the
//! layers below, and returns what it made; none knows another.

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

/// The weights of a checkpoint, each rank with its slice.
///
/// # Errors
/// The checkpoint is damaged, whichever rank sees it.
fn weights<'a>(
    world: &World,
    mesh: &'a Mesh,
    model: &Model,
    checkpoint: &mut Checkpoint,
    kind: Kind,
) -> Result<Shards<'a>> {
    if world.size() > 1 {
        // What is read whole is checked on the way; the slices of other numbers of ranks are parts of what was written.
        world.agree(checkpoint.verify_share(world.rank(), world.size()).map_err(Into::into))?;
    }
    world.agree(Shards::load(model, checkpoint, mesh, kind))
}
