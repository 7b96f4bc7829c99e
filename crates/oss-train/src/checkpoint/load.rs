//! Verifying and reading a checkpoint.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde_json::Value;
use tch::Tensor;

use super::{
    Error, Result,
    manifest::{self, Manifest, TensorRecord},
    rank_file::Origin,
};
use crate::model::{Parameter, WeightSource};
use crate::tensor_file::{FileRecord, TensorFile, TensorFileError, kind_of};
use oss_runs::storage::FileLock;
use oss_torch::{OwnedTensor, element_bytes};

/// An open checkpoint. It is not pruned while it is open.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
    /// By file name.
    files: HashMap<String, TensorFile>,
    /// Index into the manifest's tensors, by name.
    index: HashMap<String, usize>,
    /// A shared lock on the directory.
    _pin: FileLock,
}

impl Checkpoint {
    /// Opens a checkpoint's directory and checks its manifest and the sizes and headers of its files, but not the rest
    /// of their contents; see [`Checkpoint::verify`].
    pub fn open(path: &Path) -> Result<Self> {
        // Pruning holds an exclusive lock while it removes the directory.
        let pin = FileLock::share_directory(path).map_err(Error::io("open", path))?;
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
            files.insert(record.name.clone(), open_file(path, record, manifest.step)?);
        }
        let index = manifest.tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        let checkpoint = Self { path: path.to_owned(), manifest, files, index, _pin: pin };
        match checkpoint.manifest.tensors.iter().find_map(|tensor| checkpoint.mismatch(tensor)) {
            Some(what) => Err(damaged(what)),
            None => Ok(checkpoint),
        }
    }

    /// How a tensor's pieces in the files differ from the manifest; `None` if they match it.
    fn mismatch(&self, tensor: &TensorRecord) -> Option<String> {
        if kind_of(tensor.dtype).is_none() {
            return Some(format!("{} has unsupported dtype {}", tensor.name, tensor.dtype));
        }
        tensor.pieces.iter().find_map(|piece| {
            let info = self.files.get(&piece.file).and_then(|file| file.tensors().get(&piece.key));
            let fits = info.is_some_and(|info| {
                let elements: usize = info.shape.iter().product();
                info.dtype == tensor.dtype && elements as i64 == piece.end - piece.start
            });
            (!fits).then(|| {
                format!("{} does not contain {} as described by the manifest", piece.file, piece.key)
            })
        })
    }

    /// Reads every byte and compares digests. The error names the damaged tensor.
    pub fn verify(&self) -> Result<()> {
        self.verify_part(0, 1)
    }

    /// This rank's part of [`Checkpoint::verify`]; the files are divided among the ranks.
    pub fn verify_part(&self, rank: usize, ranks: usize) -> Result<()> {
        let mine: Vec<_> = self.manifest.files.iter().skip(rank).step_by(ranks).collect();
        mine.into_par_iter().try_for_each(|record| self.verify_file(record))
    }

    fn verify_file(&self, record: &FileRecord) -> Result<()> {
        if self.files[&record.name].digest()?.to_hex().as_str() == record.digest {
            return Ok(());
        }
        let what = match self.damaged_piece(&record.name)? {
            Some(key) => format!("{} in {} does not match its digest", key, record.name),
            None => format!("the header of {} does not match its digest", record.name),
        };
        Err(Error::Damaged { path: self.path.clone(), what })
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

    /// Number of training steps before it was written.
    pub fn step(&self) -> u64 {
        self.manifest.step
    }

    /// The training state that was saved with the tensors.
    pub fn state(&self) -> &Value {
        &self.manifest.state
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// Shape of a whole tensor; `None` if the checkpoint does not contain it.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.index.get(name).map(|i| self.manifest.tensors[*i].shape.as_slice())
    }

    /// BLAKE3 digest (hex) of the weights, without the optimizer state: equal for equal weights that are split over
    /// ranks in the same way. If the same weights are saved by a different number of ranks, the digest changes, and
    /// everything made from them is recomputed. A digest that is independent of the split would have to hash fixed
    /// blocks of a tensor, while pieces may start anywhere.
    pub fn weights_digest(&self) -> &str {
        &self.manifest.weights_digest
    }

    fn record(&self, name: &str) -> Result<&TensorRecord> {
        let missing = || Error::NotHeld { path: self.path.clone(), what: name.to_owned() };
        self.index.get(name).map(|i| &self.manifest.tensors[*i]).ok_or_else(missing)
    }

    /// Elements `range` of a flattened tensor: 1-D, in the stored dtype, on the CPU.
    ///
    /// Pieces that are read in full are checked against their digests; partial reads rely on [`Checkpoint::verify`].
    pub fn read(&self, name: &str, range: Range<i64>) -> Result<Tensor> {
        let tensor = self.record(name)?;
        if range.start < 0 || range.end < range.start || range.end > tensor.numel() {
            let what = format!("elements {range:?} of {name}, whose shape is {:?}", tensor.shape);
            return Err(Error::NotHeld { path: self.path.clone(), what });
        }
        let kind = kind_of(tensor.dtype).unwrap_or_else(|| unreachable!("open refuses {:?}", tensor.dtype));
        let mut out = OwnedTensor::empty(&[range.end - range.start], kind);
        let mut rest = out.bytes_mut();
        for piece in &tensor.pieces {
            let (start, end) = (range.start.max(piece.start), range.end.min(piece.end));
            if start >= end {
                continue;
            }
            let file = &self.files[&piece.file];
            let info = &file.tensors()[&piece.key];
            let elements = (start - piece.start) as usize..(end - piece.start) as usize;
            let (bytes, left) = rest.split_at_mut(elements.len() * element_bytes(kind));
            rest = left;
            let whole = end - start == piece.end - piece.start;
            let mut hasher = blake3::Hasher::new();
            file.read_into(info, elements, bytes, whole.then_some(&mut hasher))?;
            if whole && hasher.finalize().to_hex().as_str() != piece.digest {
                let what = format!("{} in {} does not match its digest", piece.key, piece.file);
                return Err(Error::Damaged { path: self.path.clone(), what });
            }
        }
        Ok(out.into_tensor())
    }

    /// A whole tensor in its shape and stored dtype, on the CPU, checked against its digests.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        let record = self.record(name)?;
        Ok(self.read(name, 0..record.numel())?.reshape(record.shape.as_slice()))
    }
}

impl WeightSource for Checkpoint {
    fn load(&mut self, parameter: Parameter) -> anyhow::Result<Tensor> {
        Ok(Self::load(self, &parameter.name())?)
    }

    fn read(&mut self, parameter: Parameter, range: Range<i64>) -> anyhow::Result<Tensor> {
        Ok(Self::read(self, &parameter.name(), range)?)
    }

    fn shape(&mut self, parameter: Parameter) -> anyhow::Result<Vec<i64>> {
        Ok(self.record(&parameter.name())?.shape.clone())
    }
}

/// Opens a file of a checkpoint, and checks its size, its header, and that it is not a file of another rank or step.
fn open_file(directory: &Path, record: &FileRecord, step: u64) -> Result<TensorFile> {
    let damaged = |what: String| Error::Damaged { path: directory.to_owned(), what };
    let path = directory.join(&record.name);
    match fs::metadata(&path) {
        Ok(found) if found.len() == record.bytes => {}
        Ok(found) => {
            return Err(damaged(format!("{} has {} of {} bytes", record.name, found.len(), record.bytes)));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged(format!("{} is missing", record.name)));
        }
        Err(error) => return Err(damaged(format!("{}: {error}", record.name))),
    }
    let file = TensorFile::open(&path).map_err(|error| match error {
        TensorFileError::Damaged { what, .. } => damaged(format!("{}: {what}", record.name)),
        other => other.into(),
    })?;
    match Origin::of(file.metadata()) {
        Some(origin) if origin.step != step || origin.file_name() != record.name => {
            Err(damaged(format!("{} was written by {origin}", record.name)))
        }
        _ => Ok(file),
    }
}
