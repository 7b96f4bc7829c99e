//! The file of one rank: its tensors and its metadata.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Entry, Error, RankFile, Result,
    manifest::{Piece, RankPiece},
    step_of,
};
use crate::tensor_file::{Planned, TensorFileError, TensorFileWriter, dtype_of, header};
use oss_runs::storage::{Disk, Sibling};

/// Writes one rank's file to [`super::Writer::folder`], computing its digests on the way, and syncs it.
///
/// # Errors
/// [`Error::Full`] if the disk fills up; [`Error::Pieces`] if `entries` are invalid, or `folder` was not created by a
/// [`super::Writer`]. An unfinished file is removed with the writer's folder.
pub fn write_rank(folder: &Path, rank: usize, ranks: usize, entries: &[Entry]) -> Result<RankFile> {
    write_rank_with(&Disk::default(), folder, rank, ranks, entries, &AtomicBool::new(false))
}

/// Like [`write_rank`], but ends before the next tensor with [`Error::Abandoned`] once `abandoned` is set.
pub(super) fn write_rank_with(
    disk: &Disk,
    folder: &Path,
    rank: usize,
    ranks: usize,
    entries: &[Entry],
    abandoned: &AtomicBool,
) -> Result<RankFile> {
    let step = step_being_written(folder)?;
    let origin = Origin { step, rank, ranks };
    let plan = plan(origin, entries)?;
    let write = || {
        let name = origin.file_name();
        let Plan { metadata, planned, order } = plan;
        let mut writer = TensorFileWriter::create(disk, folder.join(&name), &metadata, planned.clone())?;
        let mut pieces = Vec::with_capacity(planned.len());
        for (planned, index) in planned.into_iter().zip(order) {
            if abandoned.load(Ordering::Relaxed) {
                return Err(Error::Abandoned { step });
            }
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
        let file = writer.finish()?;
        // The leader syncs the folder too, but may be on another machine, which may not see this file yet.
        disk.sync_dir(folder).map_err(Error::io("sync", folder))?;
        Ok(RankFile { file, pieces })
    };
    write().map_err(|error| explain(error, step, folder.parent().unwrap_or(folder)))
}

/// Size in bytes, to within a few, of the file that [`write_rank`] writes for `entries`.
pub fn bytes_needed(entries: &[Entry]) -> Result<u64> {
    let Plan { metadata, planned, .. } = plan(Origin { step: 0, rank: 0, ranks: 1 }, entries)?;
    Ok(header(&metadata, &planned).len() as u64 + planned.iter().map(Planned::bytes).sum::<u64>())
}

/// The step of the checkpoint that is being written to `folder`.
fn step_being_written(folder: &Path) -> Result<u64> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let step = name.and_then(Sibling::parse).and_then(|(target, kind)| match kind {
        Sibling::Temporary => step_of(target),
        Sibling::Replaced | Sibling::Removed => None,
    });
    step.ok_or_else(|| {
        Error::Pieces(format!("{} is not the temporary directory of a checkpoint", folder.display()))
    })
}

/// Which rank wrote a file, and at which step. It is stored in the header of every file, so that a misplaced file is
/// noticed without reading all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub step: u64,
    pub rank: usize,
    pub ranks: usize,
}

impl Origin {
    /// The name of the file.
    pub(super) fn file_name(self) -> String {
        format!("rank-{:05}-of-{:05}.safetensors", self.rank, self.ranks)
    }

    fn to_metadata(self) -> BTreeMap<String, String> {
        let Self { step, rank, ranks } = self;
        let fields = [
            ("format", "oss-run".to_owned()),
            ("step", step.to_string()),
            ("rank", rank.to_string()),
            ("ranks", ranks.to_string()),
        ];
        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Reads the origin from a file's metadata; `None` if it is missing, in which case only the digests can tell.
    pub(super) fn of(metadata: &HashMap<String, String>) -> Option<Self> {
        let number = |key: &str| metadata.get(key)?.parse::<u64>().ok();
        Some(Self { step: number("step")?, rank: number("rank")? as usize, ranks: number("ranks")? as usize })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, rank, ranks } = self;
        write!(f, "rank {rank} of {ranks} at step {step}")
    }
}

/// Turns an error that means a full disk into [`Error::Full`].
pub(super) fn explain(error: Error, step: u64, dir: &Path) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        Error::File(source @ TensorFileError::Io { .. })
            if matches!(&source, TensorFileError::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)) =>
        {
            Error::Full { step, dir: dir.to_owned(), source }
        }
        other => other,
    }
}

/// The plan of a rank's file.
struct Plan {
    /// The origin, and the name, shape and range of each piece that is not a whole tensor.
    metadata: BTreeMap<String, String>,
    planned: Vec<Planned>,
    /// Index of the entry of each planned tensor.
    order: Vec<usize>,
}

/// Lays out a rank's file, with wide dtypes first, so that every tensor is aligned. Empty ranges are left out, except
/// for empty tensors, of which the name and shape are stored.
fn plan(origin: Origin, entries: &[Entry]) -> Result<Plan> {
    let mut metadata = origin.to_metadata();
    let mut laid_out = Vec::with_capacity(entries.len());
    for (index, Entry { name, shape, range, tensor }) in entries.iter().enumerate() {
        let numel: i64 = shape.iter().product();
        let held = tensor.numel() as i64;
        if range.start < 0 || range.end < range.start || range.end > numel || range.end - range.start != held
        {
            let what = format!("{name} has {held} elements for {range:?} of a tensor with shape {shape:?}");
            return Err(Error::Pieces(what));
        }
        let Some(dtype) = dtype_of(tensor.kind()) else {
            return Err(Error::Pieces(format!("{name} has unsupported dtype {:?}", tensor.kind())));
        };
        if range.is_empty() && numel > 0 {
            continue;
        }
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
        return Err(Error::Pieces(format!("{} occurs twice", twice.name)));
    }
    let (planned, order) = laid_out.into_iter().unzip();
    Ok(Plan { metadata, planned, order })
}
