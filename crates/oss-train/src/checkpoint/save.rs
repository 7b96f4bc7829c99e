//! Writing a checkpoint: each rank its file, then one manifest, then one rename.
//!
//! | leader | every rank, the leader too |
//! |---|---|
//! | [`Writer::begin`]; tells all [`Writer::folder`] | |
//! | | [`write_rank`], or a [`super::Background`] |
//! | gathers the ranks' reports | reports its [`RankFile`], or why it has none |
//! | [`Writer::commit`] | |
//!
//! A leader that hears nothing from a rank drops its [`Writer`], which removes the folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Error, RankFile, Result, directory_name,
    manifest::{self, Manifest},
    rank_file::{Origin, explain},
    step_of,
};
use oss_runs::run_dir;
use oss_runs::storage::{Disk, StagedDir, clear_leftovers};

/// Room kept for the manifest, the directory and the run's logs.
const SLACK_BYTES: u64 = 4 << 20;

/// A checkpoint being written under a temporary name, which goes when this is dropped uncommitted.
///
/// With several ranks, one begins and commits; every rank calls [`super::write_rank`] on [`Writer::folder`] in between.
#[derive(Debug)]
pub struct Writer {
    disk: Disk,
    step: u64,
    /// The run's `checkpoints/`.
    dir: PathBuf,
    staged: StagedDir,
}

impl Writer {
    /// Clears away what dead processes left in `dir`, checks that `needed` bytes (of all ranks' files) are free, and
    /// opens a temporary directory.
    pub fn begin(dir: &Path, step: u64, needed: u64) -> Result<Self> {
        Self::begin_with(&Disk::default(), dir, step, needed)
    }

    pub(super) fn begin_with(disk: &Disk, dir: &Path, step: u64, needed: u64) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        clear_leftovers(disk, dir, |name| step_of(name).is_some());
        let free = run_dir::free_bytes(dir).map_err(Error::io("ask for the free space of", dir))?;
        let needed = needed + SLACK_BYTES;
        if free < needed {
            return Err(Error::NoRoom { step, dir: dir.to_owned(), needed, free });
        }
        let target = dir.join(directory_name(step));
        let staged = StagedDir::create(disk, &target).map_err(Error::io("create", &target))?;
        Ok(Self { disk: disk.clone(), step, dir: dir.to_owned(), staged })
    }

    /// Where the ranks write.
    pub fn folder(&self) -> &Path {
        self.staged.path()
    }

    /// Makes the checkpoint appear under its step and returns its directory.
    ///
    /// `reports` is what [`super::write_rank`] returned on each rank, in their order, or why a rank has nothing to
    /// report; `state` is any JSON that resuming needs.
    ///
    /// # Errors
    /// [`Error::Ranks`] names every rank that failed, and each whose file this process does not see. Whatever the
    /// error, what is there under the step's name is whole.
    pub fn commit(self, reports: Vec<Result<RankFile, String>>, state: &Value) -> Result<PathBuf> {
        let files = self.accept(reports)?;
        let manifest = Manifest::join(self.step, state.clone(), files)?;
        let explained = |error| explain(error, self.step, &self.dir);
        self.write_manifest(&manifest).map_err(explained)?;
        let target = self.dir.join(directory_name(self.step));
        self.staged
            .commit()
            .map_err(|error| explain(Error::io("commit", &target)(error), self.step, &self.dir))?;
        Ok(target)
    }

    /// The files that the ranks reported, if every rank has one and it is where it belongs.
    fn accept(&self, reports: Vec<Result<RankFile, String>>) -> Result<Vec<RankFile>> {
        let ranks = reports.len();
        let mut files = Vec::with_capacity(ranks);
        let mut problems = Vec::new();
        for (rank, report) in reports.into_iter().enumerate() {
            match report.and_then(|file| self.found(file, rank, ranks)) {
                Ok(file) => files.push(file),
                Err(problem) => problems.push(format!("rank {rank}: {problem}")),
            }
        }
        if problems.is_empty() {
            return Ok(files);
        }
        let problems = problems.join("\n  ");
        Err(Error::Ranks { step: self.step, dir: self.dir.clone(), problems })
    }

    /// The file that a rank reported, or why it is not the one expected.
    fn found(&self, reported: RankFile, rank: usize, ranks: usize) -> Result<RankFile, String> {
        let RankFile { file, .. } = &reported;
        let expected = Origin { step: self.step, rank, ranks }.file_name();
        if file.name != expected {
            return Err(format!("it wrote {} instead of {expected}", file.name));
        }
        match fs::metadata(self.folder().join(&expected)) {
            Ok(found) if found.len() == file.bytes => Ok(reported),
            Ok(found) => Err(format!("{expected} has {} of {} bytes", found.len(), file.bytes)),
            Err(error) => Err(format!(
                "{expected} is not to be seen from here ({error}): --runs-dir has to be on a \
                 file system that all ranks share"
            )),
        }
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.folder().join(manifest::FILE_NAME);
        let write = || -> io::Result<()> {
            let mut file = self.disk.create_file(&path)?;
            self.disk.write_all(&mut file, &manifest.to_bytes())?;
            self.disk.sync_file(&file)
        };
        write().map_err(Error::io("write", &path))
    }
}
