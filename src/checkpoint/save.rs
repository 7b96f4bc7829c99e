//! Writing a checkpoint: each rank its file, then one manifest, then one rename.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Entry, Error, RankFile, Result, directory_name,
    manifest::{self, Manifest, Piece, RankPiece},
    step_of,
};
use crate::{
    run_dir,
    storage::{
        Disk, Planned, Sibling, TensorFileError, TensorFileWriter, dtype_of, header, hold, in_use,
        swap_directory,
    },
};

/// Room kept for the manifest, the directory and the run's logs.
const SLACK_BYTES: u64 = 4 << 20;

/// Writes the checkpoint of one rank that holds everything, and returns its directory.
///
/// `dir` is the run's `checkpoints/`, created if missing. A checkpoint of the same step is replaced once the new one is
/// complete. Whatever fails, earlier checkpoints stay as they are.
pub fn save(dir: &Path, step: u64, entries: &[Entry], state: &Value) -> Result<PathBuf> {
    save_with(&Disk::default(), dir, step, entries, state)
}

pub(super) fn save_with(
    disk: &Disk,
    dir: &Path,
    step: u64,
    entries: &[Entry],
    state: &Value,
) -> Result<PathBuf> {
    let writer = Writer::begin_with(disk, dir, step, bytes_needed(entries)?)?;
    let written = write_rank_with(disk, writer.folder(), 0, 1, entries);
    let rank = written.map_err(|error| writer.explain(error))?;
    writer.commit(vec![rank], state)
}

/// Bytes of the file that [`write_rank`] makes of `entries`.
pub fn bytes_needed(entries: &[Entry]) -> Result<u64> {
    let Plan { metadata, planned, .. } = plan(0, 1, entries)?;
    Ok(header(&metadata, &planned).len() as u64 + planned.iter().map(Planned::bytes).sum::<u64>())
}

/// A checkpoint being written under a temporary name, which goes when this is dropped uncommitted.
///
/// With several ranks, one begins and commits; every rank calls [`write_rank`] on [`Writer::folder`] in between.
#[derive(Debug)]
pub struct Writer {
    disk: Disk,
    step: u64,
    /// The run's `checkpoints/`.
    dir: PathBuf,
    temporary: PathBuf,
    committed: bool,
    /// Keeps others from taking the directory for a dead process's.
    _held: File,
}

impl Writer {
    /// Clears away what dead processes left in `dir`, checks that `needed` bytes (of all ranks' files) are free, and
    /// opens a temporary directory.
    pub fn begin(dir: &Path, step: u64, needed: u64) -> Result<Self> {
        Self::begin_with(&Disk::default(), dir, step, needed)
    }

    fn begin_with(disk: &Disk, dir: &Path, step: u64, needed: u64) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        clear_leftovers(disk, dir);
        let free = run_dir::free_bytes(dir).map_err(Error::io("ask for the free space of", dir))?;
        let needed = needed + SLACK_BYTES;
        if free < needed {
            return Err(Error::NoRoom { step, dir: dir.to_owned(), needed, free });
        }
        let temporary = Sibling::Temporary.of(&dir.join(directory_name(step)));
        disk.create_dir(&temporary).map_err(Error::io("create", &temporary))?;
        let held = hold(&temporary).map_err(Error::io("open", &temporary))?;
        Ok(Self { disk: disk.clone(), step, dir: dir.to_owned(), temporary, committed: false, _held: held })
    }

    /// Where the ranks write.
    pub fn folder(&self) -> &Path {
        &self.temporary
    }

    /// Makes the checkpoint appear under its step and returns its directory.
    ///
    /// `ranks` is what [`write_rank`] returned on each; `state` is any JSON that resuming needs.
    pub fn commit(mut self, ranks: Vec<RankFile>, state: &Value) -> Result<PathBuf> {
        let manifest = Manifest::join(self.step, state.clone(), ranks)?;
        self.write_manifest(&manifest).map_err(|error| self.explain(error))?;
        let target = self.dir.join(directory_name(self.step));
        swap_directory(&self.disk, &self.temporary, &target)
            .map_err(|error| self.explain(Error::io("commit", &target)(error)))?;
        self.committed = true;
        Ok(target)
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.temporary.join(manifest::FILE_NAME);
        let write = || -> io::Result<()> {
            let mut file = self.disk.create_file(&path)?;
            self.disk.write_all(&mut file, &manifest.to_bytes())?;
            self.disk.sync_file(&file)
        };
        write().map_err(Error::io("write", &path))
    }

    /// Says of a full disk what became of the checkpoints.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::File(source) if is_full(&source) => {
                Error::Full { step: self.step, dir: self.dir.clone(), source }
            }
            other => other,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A failed commit may have moved it already; what cannot be removed now is cleared away by the next save.
        if !self.committed && self.temporary.exists() {
            let _ = self.disk.remove_dir_all(&self.temporary);
        }
    }
}

fn is_full(error: &TensorFileError) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, TensorFileError::Io { source, .. }
        if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

/// Writes one rank's file into a [`Writer`]'s folder, hashing on the way, and syncs it.
pub fn write_rank(folder: &Path, rank: usize, ranks: usize, entries: &[Entry]) -> Result<RankFile> {
    write_rank_with(&Disk::default(), folder, rank, ranks, entries)
}

fn write_rank_with(
    disk: &Disk,
    folder: &Path,
    rank: usize,
    ranks: usize,
    entries: &[Entry],
) -> Result<RankFile> {
    let name = format!("rank-{rank:05}-of-{ranks:05}.safetensors");
    let Plan { metadata, planned, order } = plan(rank, ranks, entries)?;
    let mut writer = TensorFileWriter::create(disk, folder.join(&name), &metadata, planned.clone())?;
    let mut pieces = Vec::with_capacity(planned.len());
    for (planned, index) in planned.into_iter().zip(order) {
        let entry = &entries[index];
        let digest = writer.write(&entry.tensor)?.to_hex().to_string();
        let Entry { name: tensor, shape, range, .. } = entry;
        pieces.push(RankPiece {
            name: tensor.clone(),
            shape: shape.clone(),
            dtype: planned.dtype,
            piece: Piece {
                start: range.start,
                end: range.end,
                file: name.clone(),
                key: planned.name,
                digest,
            },
        });
    }
    Ok(RankFile { file: writer.finish()?, pieces })
}

/// A rank's file before it is written.
struct Plan {
    /// What the file says about itself, and the name, shape and range behind each key that is not a whole tensor.
    metadata: BTreeMap<String, String>,
    planned: Vec<Planned>,
    /// Which entry each planned tensor is.
    order: Vec<usize>,
}

/// Lays out a rank's file: wide kinds first, so that every tensor starts aligned.
fn plan(rank: usize, ranks: usize, entries: &[Entry]) -> Result<Plan> {
    let mut metadata = BTreeMap::from([("format".to_owned(), format!("oss-run rank {rank} of {ranks}"))]);
    let mut laid_out = Vec::with_capacity(entries.len());
    for (index, Entry { name, shape, range, tensor }) in entries.iter().enumerate() {
        let numel: i64 = shape.iter().product();
        let held = tensor.numel() as i64;
        if range.start < 0 || range.end < range.start || range.end > numel || range.end - range.start != held
        {
            let what = format!("{name} has {held} elements for {range:?} of a tensor of shape {shape:?}");
            return Err(Error::Pieces(what));
        }
        let Some(dtype) = dtype_of(tensor.kind()) else {
            return Err(Error::Pieces(format!("{name} is of kind {:?}, which is not stored", tensor.kind())));
        };
        let planned = if *range == (0..numel) {
            Planned { name: name.clone(), dtype, shape: shape.clone() }
        } else {
            let key = format!("{name}[{}..{}]", range.start, range.end);
            let what =
                serde_json::json!({ "name": name, "shape": shape, "start": range.start, "end": range.end });
            metadata.insert(key.clone(), what.to_string());
            Planned { name: key, dtype, shape: vec![held] }
        };
        laid_out.push((planned, index));
    }
    laid_out.sort_by_key(|(planned, _)| Reverse(planned.dtype.bitsize()));
    let mut seen = std::collections::HashSet::new();
    if let Some((twice, _)) = laid_out.iter().find(|(planned, _)| !seen.insert(planned.name.clone())) {
        return Err(Error::Pieces(format!("{} is there twice", twice.name)));
    }
    let (planned, order) = laid_out.into_iter().unzip();
    Ok(Plan { metadata, planned, order })
}

/// Removes what dead processes left in `dir`: unfinished checkpoints, replaced ones, half-deleted ones. A replaced
/// checkpoint whose successor never got its name takes its name back. Failing here must not fail a save.
fn clear_leftovers(disk: &Disk, dir: &Path) {
    let Ok(names) = fs::read_dir(dir) else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some((target, kind)) = Sibling::parse(&name) else { continue };
        if step_of(target).is_none() {
            continue;
        }
        let (path, target) = (dir.join(&name), dir.join(target));
        let cleared = if kind == Sibling::Replaced && !target.exists() {
            disk.rename(&path, &target)
        } else if kind == Sibling::Temporary && in_use(&path) {
            Ok(())
        } else {
            disk.remove_dir_all(&path)
        };
        if let Err(error) = cleared {
            tracing::warn!("cannot clear away {}: {error}", path.display());
        }
    }
}
