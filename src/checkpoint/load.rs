//! Finding, checking and reading checkpoints.

use std::{
    collections::HashMap,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde_json::Value;
use tch::{Device, Tensor};

use super::{
    Error, Result,
    manifest::{self, Manifest, TensorRecord},
    step_of,
};
use crate::{
    model::WeightSource,
    storage::{Sibling, TensorFile, TensorFileError, kind_of},
};

/// An open checkpoint. While it lives, pruning leaves the checkpoint alone.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
    /// By file name.
    files: HashMap<String, TensorFile>,
    /// Index into the manifest's tensors, by name.
    index: HashMap<String, usize>,
    /// The directory, locked shared.
    _pin: File,
}

/// Steps and directories of the complete checkpoints in `dir`, oldest first.
///
/// Complete means that the manifest matches its digest and every file has its size; [`Checkpoint::verify`] looks at
/// every byte. A missing `dir` holds none.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    scan(dir).into_iter().filter(|(_, path)| Checkpoint::open(path).is_ok()).collect()
}

/// The newest checkpoint in `dir` whose every byte is as it was written; none when there are no checkpoints.
///
/// Damaged ones are passed over with a warning that names the damage. Fails when all are damaged, so that nobody starts
/// over from nothing by mistake.
pub fn latest(dir: &Path) -> Result<Option<Checkpoint>> {
    let mut problems = Vec::new();
    for (step, path) in scan(dir).into_iter().rev() {
        match Checkpoint::open(&path).and_then(|checkpoint| checkpoint.verify().map(|()| checkpoint)) {
            Ok(checkpoint) => {
                for problem in problems {
                    tracing::warn!("{problem}; going on from step {step}");
                }
                return Ok(Some(checkpoint));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    if problems.is_empty() {
        return Ok(None);
    }
    Err(Error::AllDamaged { dir: dir.to_owned(), problems: problems.join("\n") })
}

/// Every directory in `dir` that ought to be a checkpoint, oldest first.
fn scan(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(names) = fs::read_dir(dir) else { return Vec::new() };
    let names: Vec<String> =
        names.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut found: Vec<_> = names.iter().filter_map(|name| Some((step_of(name)?, dir.join(name)))).collect();
    for name in &names {
        // A process that died while replacing a checkpoint may have left the step under this name alone.
        if let Some((target, Sibling::Replaced)) = Sibling::parse(name)
            && let Some(step) = step_of(target)
            && !found.iter().any(|(other, _)| *other == step)
        {
            found.push((step, dir.join(name)));
        }
    }
    found.sort();
    found
}

impl Checkpoint {
    /// Opens a checkpoint's directory and checks its manifest, its files' sizes and their headers, but not yet their
    /// every byte.
    pub fn open(path: &Path) -> Result<Self> {
        let pin = pin(path)?;
        let manifest_path = path.join(manifest::FILE_NAME);
        let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
        let bytes = match fs::read(&manifest_path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_dir() => {
                return Err(damaged(format!("{} is missing", manifest::FILE_NAME)));
            }
            Err(error) => return Err(Error::io("read", &manifest_path)(error)),
        };
        let manifest = Manifest::from_bytes(&bytes, path)?;
        let mut files = HashMap::new();
        for record in &manifest.files {
            let file_path = path.join(&record.name);
            match fs::metadata(&file_path) {
                Ok(found) if found.len() == record.bytes => {}
                Ok(found) => {
                    let what = format!("{} has {} of {} bytes", record.name, found.len(), record.bytes);
                    return Err(damaged(what));
                }
                Err(error) => return Err(damaged(format!("{}: {error}", record.name))),
            }
            let file = TensorFile::open(&file_path).map_err(|error| match error {
                TensorFileError::Damaged { what, .. } => damaged(format!("{}: {what}", record.name)),
                other => other.into(),
            })?;
            files.insert(record.name.clone(), file);
        }
        let index = manifest.tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        let checkpoint = Self { path: path.to_owned(), manifest, files, index, _pin: pin };
        match checkpoint.manifest.tensors.iter().find_map(|tensor| checkpoint.misfit(tensor)) {
            Some(what) => Err(damaged(what)),
            None => Ok(checkpoint),
        }
    }

    /// Why a tensor's pieces are not in the files as the manifest says; none when they are.
    fn misfit(&self, tensor: &TensorRecord) -> Option<String> {
        if kind_of(tensor.dtype).is_none() {
            return Some(format!("{} is of kind {}, which is not stored", tensor.name, tensor.dtype));
        }
        tensor.pieces.iter().find_map(|piece| {
            let info = self.files.get(&piece.file).and_then(|file| file.tensors().get(&piece.key));
            let fits = info.is_some_and(|info| {
                let elements: usize = info.shape.iter().product();
                info.dtype == tensor.dtype && elements as i64 == piece.end - piece.start
            });
            (!fits).then(|| format!("{} does not hold {} as the manifest says", piece.file, piece.key))
        })
    }

    /// Reads every byte and compares digests. The error names the tensor that is damaged.
    pub fn verify(&self) -> Result<()> {
        self.manifest.files.par_iter().try_for_each(|record| {
            if self.files[&record.name].digest()?.to_hex().as_str() == record.digest {
                return Ok(());
            }
            let what = match self.damaged_piece(&record.name)? {
                Some(key) => format!("{} in {} does not match its digest", key, record.name),
                None => format!("the header of {} does not match its digest", record.name),
            };
            Err(Error::Damaged { path: self.path.clone(), what })
        })
    }

    fn damaged_piece(&self, file_name: &str) -> Result<Option<String>> {
        let file = &self.files[file_name];
        let pieces = self.manifest.tensors.iter().flat_map(|tensor| &tensor.pieces);
        for piece in pieces.filter(|piece| piece.file == file_name) {
            if file.tensor_digest(&file.tensors()[&piece.key])?.to_hex().as_str() != piece.digest {
                return Ok(Some(piece.key.clone()));
            }
        }
        Ok(None)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Steps taken before it was written.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// What was handed to the save beside tensors.
    pub fn state(&self) -> &Value {
        &self.manifest.state
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// Shape of a whole tensor; none for a name that the checkpoint does not hold.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.index.get(name).map(|i| self.manifest.tensors[*i].shape.as_slice())
    }

    /// blake3 (hex) of the weights without the optimizer's state: the same for the same weights split in the same way
    /// over ranks.
    pub fn weights_digest(&self) -> &str {
        &self.manifest.weights_digest
    }

    fn record(&self, name: &str) -> Result<&TensorRecord> {
        let missing = || Error::NotHeld { path: self.path.clone(), what: name.to_owned() };
        self.index.get(name).map(|i| &self.manifest.tensors[*i]).ok_or_else(missing)
    }

    /// Flattened elements `range` of a tensor: 1-D, of the stored kind, on the CPU.
    ///
    /// Pieces that are read whole are checked against their digests.
    pub fn read(&self, name: &str, range: Range<i64>) -> Result<Tensor> {
        let tensor = self.record(name)?;
        if range.start < 0 || range.end < range.start || range.end > tensor.numel() {
            let what = format!("elements {range:?} of {name}, whose shape is {:?}", tensor.shape);
            return Err(Error::NotHeld { path: self.path.clone(), what });
        }
        let kind = kind_of(tensor.dtype).unwrap_or_else(|| unreachable!("open refuses {:?}", tensor.dtype));
        let mut parts = Vec::new();
        for piece in &tensor.pieces {
            let (start, end) = (range.start.max(piece.start), range.end.min(piece.end));
            if start >= end {
                continue;
            }
            let file = &self.files[&piece.file];
            let info = &file.tensors()[&piece.key];
            let elements = (start - piece.start) as usize..(end - piece.start) as usize;
            let whole = end - start == piece.end - piece.start;
            let mut hasher = blake3::Hasher::new();
            parts.push(file.read(info, elements, whole.then_some(&mut hasher))?);
            if whole && hasher.finalize().to_hex().as_str() != piece.digest {
                let what = format!("{} in {} does not match its digest", piece.key, piece.file);
                return Err(Error::Damaged { path: self.path.clone(), what });
            }
        }
        Ok(match parts.len() {
            0 => Tensor::empty([0], (kind, Device::Cpu)),
            1 => parts.remove(0),
            _ => Tensor::cat(&parts, 0),
        })
    }

    /// A whole tensor in its shape, of the stored kind, on the CPU, checked against its digest.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        let record = self.record(name)?;
        Ok(self.read(name, 0..record.numel())?.reshape(record.shape.as_slice()))
    }
}

impl WeightSource for Checkpoint {
    fn load(&mut self, name: &str) -> anyhow::Result<Tensor> {
        Ok(Self::load(self, name)?)
    }

    fn read(&mut self, name: &str, range: Range<i64>) -> anyhow::Result<Tensor> {
        Ok(Self::read(self, name, range)?)
    }

    fn shape(&mut self, name: &str) -> anyhow::Result<Vec<i64>> {
        Ok(self.record(name)?.shape.clone())
    }
}

/// Takes a shared lock on a checkpoint, so that it is not pruned meanwhile.
fn pin(path: &Path) -> Result<File> {
    let directory = File::open(path).map_err(Error::io("open", path))?;
    // Writers and pruners hold it exclusively for as long as a rename takes. A file system without locks is used all
    // the same.
    let _ = directory.lock_shared();
    Ok(directory)
}
