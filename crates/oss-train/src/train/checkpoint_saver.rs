//! Checkpoints of a run in training: every rank its file, at once or while training goes on.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::checkpoint::{Background, Entry, RankFile, Writer, bytes_needed, write_rank};
use crate::distributed::{Mesh, World};
use oss_config::error::ErrorReport;

/// One rank's part in writing checkpoints.
pub struct CheckpointSaver<'a> {
    world: &'a World,
    mesh: &'a Mesh,
    /// The run's checkpoints.
    dir: &'a Path,
    begun: Option<Begun>,
}

/// A checkpoint that is being written.
struct Begun {
    /// On the leader.
    writer: Option<Writer>,
    state: Value,
    /// This rank's file; none on ranks that write none.
    file: Option<Background>,
}

impl<'a> CheckpointSaver<'a> {
    /// Nothing written yet.
    pub fn new(world: &'a World, mesh: &'a Mesh, dir: &'a Path) -> Self {
        Self { world, mesh, dir, begun: None }
    }

    /// Writes this rank's `entries` and makes the checkpoint of `step` appear, on all ranks together.
    ///
    /// # Errors
    /// Any rank cannot write: on all ranks, with that rank's number.
    pub fn save(&mut self, step: u64, entries: &[Entry], state: Value) -> Result<()> {
        self.complete()?;
        let (writer, folder) = self.begin(step, entries)?;
        let file = self.writes().then(|| write_rank(&folder, self.mesh.shard, self.mesh.shards, entries));
        self.commit(writer, file.map(|file| file.map_err(|error| ErrorReport::of(error).summary())), &state)
    }

    /// Copies this rank's `entries` and writes them while training goes on; [`Self::complete`] ends it.
    ///
    /// # Errors
    /// As [`Self::save`], as far as it is known at once.
    pub fn save_in_background(&mut self, step: u64, entries: &[Entry], state: Value) -> Result<()> {
        self.complete()?;
        let (writer, folder) = self.begin(step, entries)?;
        let start = || Background::start(&folder, self.mesh.shard, self.mesh.shards, entries);
        let file = self.world.all_ok(self.writes().then(start).transpose().map_err(Into::into))?;
        self.begun = Some(Begun { writer, state, file });
        Ok(())
    }

    /// Whether a checkpoint was begun and is not complete.
    pub fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether this rank's file is still on its way.
    pub fn is_writing(&self) -> bool {
        self.begun.iter().any(|begun| begun.file.as_ref().is_some_and(|file| !file.is_finished()))
    }

    /// Waits for the checkpoint that was begun, if there is one, and makes it appear.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn complete(&mut self) -> Result<()> {
        let Some(Begun { writer, state, file }) = self.begun.take() else { return Ok(()) };
        let file = file.map(|file| file.wait().map_err(|error| ErrorReport::of(error).summary()));
        self.commit(writer, file, &state)
    }

    /// Replicas hold the same: the first one writes.
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
