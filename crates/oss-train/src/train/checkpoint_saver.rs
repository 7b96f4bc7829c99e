//! Saves checkpoints during training: each rank writes its own file, synchronously or in the background.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::checkpoint::{Background, Entry, RankFile, Writer, bytes_needed, write_rank};
use crate::distributed::{Mesh, World};
use oss_config::error::ErrorReport;

/// One rank's side of writing checkpoints.
pub struct CheckpointSaver<'a> {
    world: &'a World,
    mesh: &'a Mesh,
    /// The directory of the run's checkpoints.
    dir: &'a Path,
    begun: Option<PendingSave>,
}

/// A checkpoint that is being written in the background.
struct PendingSave {
    /// Only on the leader.
    writer: Option<Writer>,
    state: Value,
    /// This rank's file, if it writes one.
    file: Option<Background>,
}

impl<'a> CheckpointSaver<'a> {
    /// A saver for the directory `dir`, with no checkpoint in progress.
    pub fn new(world: &'a World, mesh: &'a Mesh, dir: &'a Path) -> Self {
        Self { world, mesh, dir, begun: None }
    }

    /// Writes this rank's `entries` and commits the checkpoint of `step`. Collective: all ranks must call it.
    ///
    /// # Errors
    /// Fails on all ranks if any rank cannot write; the error names that rank.
    pub fn save(&mut self, step: u64, entries: &[Entry], state: Value) -> Result<()> {
        self.complete()?;
        let (writer, folder) = self.begin(step, entries)?;
        let file = self.writes().then(|| write_rank(&folder, self.mesh.shard, self.mesh.shards, entries));
        self.commit(writer, file.map(|file| file.map_err(|error| ErrorReport::of(error).summary())), &state)
    }

    /// Copies this rank's `entries` and writes them while training continues. [`Self::complete`] commits the
    /// checkpoint.
    ///
    /// # Errors
    /// As [`Self::save`], as far as the failure is already known.
    pub fn save_in_background(&mut self, step: u64, entries: &[Entry], state: Value) -> Result<()> {
        self.complete()?;
        let (writer, folder) = self.begin(step, entries)?;
        let start = || Background::start(&folder, self.mesh.shard, self.mesh.shards, entries);
        let file = self.world.all_ok(self.writes().then(start).transpose().map_err(Into::into))?;
        self.begun = Some(PendingSave { writer, state, file });
        Ok(())
    }

    /// Whether a checkpoint is in progress and not yet committed.
    pub fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether this rank's file is still being written.
    pub fn is_writing(&self) -> bool {
        self.begun.iter().any(|begun| begun.file.as_ref().is_some_and(|file| !file.is_finished()))
    }

    /// Waits for the checkpoint in progress, if any, and commits it.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn complete(&mut self) -> Result<()> {
        let Some(PendingSave { writer, state, file }) = self.begun.take() else { return Ok(()) };
        let file = file.map(|file| file.wait().map_err(|error| ErrorReport::of(error).summary()));
        self.commit(writer, file, &state)
    }

    /// Replicas hold identical state: only the first one writes.
    fn writes(&self) -> bool {
        self.mesh.replica == 0
    }

    fn begin(&self, step: u64, entries: &[Entry]) -> Result<(Option<Writer>, PathBuf)> {
        let needed = self.world.gather(&bytes_needed(entries)?)?;
        let writer = needed.map(|needed| Writer::begin(self.dir, step, needed.iter().sum())).transpose();
        let writer = self.world.all_ok(writer.map_err(Into::into))?;
        let folder = self.world.broadcast(writer.as_ref().map(|writer| writer.folder().to_owned()))?;
        Ok((writer, folder))
    }

    fn commit(
        &self,
        writer: Option<Writer>,
        file: Option<Result<RankFile, String>>,
        state: &Value,
    ) -> Result<()> {
        let reports = self.world.gather(&file)?;
        let committed = writer.zip(reports).map(|(writer, reports)| {
            let reports = reports.into_iter().flatten().collect();
            writer.commit(reports, state).map(drop).map_err(anyhow::Error::from)
        });
        self.world.all_ok(committed.unwrap_or(Ok(())))
    }
}
