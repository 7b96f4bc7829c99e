//! The file of one rank: what it holds, and what it says about itself.

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

/// Writes one rank's file into [`super::Writer::folder`], hashing on the way, and syncs it.
///
/// # Errors
/// [`Error::Full`] when the disk fills up; [`Error::Pieces`] when `entries` do not fit, or `folder` is not one that a
/// [`super::Writer`] made. What was written goes with the writer's folder.
pub fn write_rank(folder: &Path, rank: usize, ranks: usize, entries: &[Entry]) -> Result<RankFile> {
    write_rank_with(&Disk::default(), folder, rank, ranks, entries, &AtomicBool::new(false))
}

/// The same, until `abandoned` is set: then it ends in front of the next tensor, with [`Error::Abandoned`].
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
        // The leader syncs the folder too, but may be another machine's, which need not know of this name yet.
        disk.sync_dir(folder).map_err(Error::io("sync", folder))?;
        Ok(RankFile { file, pieces })
    };
    write().map_err(|error| explain(error, step, folder.parent().unwrap_or(folder)))
}

/// Bytes of the file that [`write_rank`] makes of `entries`, to within a few.
pub fn bytes_needed(entries: &[Entry]) -> Result<u64> {
    let Plan { metadata, planned, .. } = plan(Origin { step: 0, rank: 0, ranks: 1 }, entries)?;
    Ok(header(&metadata, &planned).len() as u64 + planned.iter().map(Planned::bytes).sum::<u64>())
}

/// The step of a checkpoint that is being written to `folder`.
fn step_being_written(folder: &Path) -> Result<u64> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let step = name.and_then(Sibling::parse).and_then(|(target, kind)| match kind {
        Sibling::Temporary => step_of(target),
        Sibling::Replaced | Sibling::Removed => None,
    });
    step.ok_or_else(|| {
        Error::Pieces(format!("{} is no folder of a checkpoint that is being written", folder.display()))
    })
}

/// Who wrote a file, and when. Every file says so in its header, so that one in another's place is told apart before
/// its every byte is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub step: u64,
    pub rank: usize,
    pub ranks: usize,
}

impl Origin {
    /// What such a file is called.
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

    /// What a file says of itself; none when it says nothing, which leaves it to the digests.
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

/// Says of a full disk what became of the checkpoints.
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

/// A rank's file before it is written.
struct Plan {
    /// What the file says about itself, and the name, shape and range behind each key that is not a whole tensor.
    metadata: BTreeMap<String, String>,
    planned: Vec<Planned>,
    /// Which entry each planned tensor is.
    order: Vec<usize>,
}

/// Lays out a rank's file: wide kinds first, so that every tensor starts aligned. Ranges without elements are left out,
/// unless the tensor has none itself and only its name and shape are kept.
fn plan(origin: Origin, entries: &[Entry]) -> Result<Plan> {
    let mut metadata = origin.to_metadata();
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
        return Err(Error::Pieces(format!("{} is there twice", twice.name)));
    }
    let (planned, order) = laid_out.into_iter().unzip();
    Ok(Plan { metadata, planned, order })
}
