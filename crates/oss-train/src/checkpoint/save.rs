//! Writing a checkpoint: each rank writes its file, then the leader writes the manifest and renames the directory.
//!
//! | leader | every rank, including the leader |
//! |---|---|
//! | [`Writer::begin`]; broadcasts [`Writer::folder`] | |
//! | | [`write_rank`], or a [`super::Background`] |
//! | gathers the ranks' reports | reports its [`RankFile`], or why it has none |
//! | [`Writer::commit`] | |
//!
//! If a rank does not report, the leader drops its [`Writer`], which removes the folder.

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

/// Disk space reserved for the manifest, the directory and the run's logs.
const SLACK_BYTES: u64 = 4 << 20;

/// A checkpoint that is being written under a temporary name. It is removed if this is dropped without a commit.
///
/// With several ranks, the leader begins and commits; in between, every rank calls [`super::write_rank`] on
/// [`Writer::folder`].
#[derive(Debug)]
pub struct Writer {
    disk: Disk,
    step: u64,
    /// The run's `checkpoints/`.
    dir: PathBuf,
    staged: StagedDir,
}

impl Writer {
    /// Removes what killed processes left in `dir`, checks that `needed` bytes (for the files of all ranks) are free,
    /// and creates a temporary directory.
    pub fn begin(dir: &Path, step: u64, needed: u64) -> Result<Self> {
        Self::begin_with(&Disk::default(), dir, step, needed)
    }

    pub(super) fn begin_with(disk: &Disk, dir: &Path, step: u64, needed: u64) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        clear_leftovers(disk, dir, |name| step_of(name).is_some());
        let free = run_dir::free_bytes(dir).map_err(Error::io("determine the free space in", dir))?;
        let needed = needed + SLACK_BYTES;
        if free < needed {
            return Err(Error::NoRoom { step, dir: dir.to_owned(), needed, free });
        }
        let target = dir.join(directory_name(step));
        let staged = StagedDir::create(disk, &target).map_err(Error::io("create", &target))?;
        Ok(Self { disk: disk.clone(), step, dir: dir.to_owned(), staged })
    }

    /// The directory that the ranks write to.
    pub fn folder(&self) -> &Path {
        self.staged.path()
    }

    /// Moves the checkpoint into place and returns its directory.
    ///
    /// `reports` has what [`super::write_rank`] returned on each rank, in order, or why it failed. `state` is any JSON
    /// that resuming needs.
    ///
    /// # Errors
    /// [`Error::Ranks`] names every rank that failed, or whose file is not visible to this process. After any error, an
    /// earlier checkpoint of this step is still intact.
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

    /// The files that the ranks reported, if every rank has written one and it is in place.
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

    /// The file that a rank reported, or why it is not the expected one.
    fn found(&self, reported: RankFile, rank: usize, ranks: usize) -> Result<RankFile, String> {
        let RankFile { file, .. } = &reported;
        let expected = Origin { step: self.step, rank, ranks }.file_name();
        if file.name != expected {
            return Err(format!("wrote {} instead of {expected}", file.name));
        }
        match fs::metadata(self.folder().join(&expected)) {
            Ok(found) if found.len() == file.bytes => Ok(reported),
            Ok(found) => Err(format!("{expected} has {} of {} bytes", found.len(), file.bytes)),
            Err(error) => Err(format!(
                "{expected} is not visible to the leader ({error}): --runs-dir must be on a \
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
