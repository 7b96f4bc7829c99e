//! One thin file a stage: prepare, train, evaluate, sample, export. Each takes what it reads, does its work with the
//! layers below, and returns what it made; none knows another.

pub mod evaluate;
pub mod export;
pub mod prepare;
pub mod sample;
pub mod train;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::checkpoint::Checkpoint;
use crate::distributed::{Mesh, Shards, World};
use crate::experiment::Model;

/// A file that a stage wrote, as its record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path inside the run directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// blake3 of its content, in hexadecimal.
    pub blake3: String,
}

impl OutputFile {
    /// Looks at a small file that was just written under `root`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(root: &Path, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            path: path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned(),
            bytes: content.len() as u64,
            blake3: blake3::hash(&content).to_hex().to_string(),
        })
    }
}

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
