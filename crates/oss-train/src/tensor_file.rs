//! safetensors files, written as a stream and read by range.
//!
//! The safetensors crate wants all tensors at once, syncs nothing and creates files of mode 0600. Here a file is
//! planned first (names, kinds and shapes give its header), then filled tensor by tensor in the planned order, and
//! every byte is hashed on its way out. Reading trusts nothing: the header's size is capped, and its tensors must cover
//! the rest of the file without holes or overlaps.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use oss_runs::storage::Disk;
use oss_torch::{OwnedTensor, copy_bytes, element_bytes};

/// The longest header that safetensors readers accept.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes that are written, read and hashed at once.
const CHUNK_BYTES: usize = 8 << 20;
/// Bytes of a tensor that are read before they are hashed.
const PART_BYTES: usize = 4 * CHUNK_BYTES;
/// Bytes of the header's length in front of it.
const LENGTH_BYTES: u64 = 8;

/// What is wrong with a tensor file.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not hold.
        what: String,
    },
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TensorFileError {
    let path = path.to_owned();
    move |source| TensorFileError::Io { action, path, source }
}

type Result<T, E = TensorFileError> = std::result::Result<T, E>;

/// The stored form of a kind; none for kinds that checkpoints do not hold.
pub(crate) fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|(k, _)| *k == kind).map(|(_, dtype)| *dtype)
}

/// The kind of a stored form; none for forms that libtorch lacks here.
pub(crate) fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|(_, d)| *d == dtype).map(|(kind, _)| *kind)
}

const KINDS: [(Kind, Dtype); 10] = [
    (Kind::Bool, Dtype::BOOL),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int, Dtype::I32),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Int64, Dtype::I64),
];

/// One tensor that a file will hold.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<i64>,
}

impl Planned {
    pub(crate) fn bytes(&self) -> u64 {
        let elements: i64 = self.shape.iter().product();
        elements as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// A written file: its plain name, size and content digest (blake3, hex).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Name inside its directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// blake3 of the content, in hex.
    pub digest: String,
}

/// The bytes in front of the tensors: length, then JSON padded with spaces so that data starts aligned.
pub(crate) fn header(metadata: &BTreeMap<String, String>, plan: &[Planned]) -> Vec<u8> {
    let mut fields = serde_json::Map::new();
    if !metadata.is_empty() {
        fields.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for tensor in plan {
        let start = end;
        end += tensor.bytes();
        let entry = serde_json::json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end],
        });
        fields.insert(tensor.name.clone(), entry);
    }
    let mut json = serde_json::Value::Object(fields).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

/// A file being filled in the order of its plan.
#[derive(Debug)]
pub(crate) struct TensorFileWriter {
    disk: Disk,
    path: PathBuf,
    file: File,
    plan: std::vec::IntoIter<Planned>,
    hasher: blake3::Hasher,
    bytes: u64,
    buffer: Vec<u8>,
}

impl TensorFileWriter {
    /// Creates the file and writes its header. It must not exist yet.
    pub(crate) fn create(
        disk: &Disk,
        path: PathBuf,
        metadata: &BTreeMap<String, String>,
        plan: Vec<Planned>,
    ) -> Result<Self> {
        let header = header(metadata, &plan);
        let file = disk.create_file(&path).map_err(io_error("create", &path))?;
        let plan = plan.into_iter();
        let mut writer = Self {
            disk: disk.clone(),
            path,
            file,
            plan,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            buffer: Vec::new(),
        };
        writer.put(&header, &mut blake3::Hasher::new())?;
        Ok(writer)
    }

    /// Writes the plan's next tensor and returns its digest.
    ///
    /// # Panics
    /// When the tensor is not the planned one: a bug of the caller.
    pub(crate) fn write(&mut self, tensor: &Tensor) -> Result<blake3::Hash> {
        let planned = self.plan.next();
        let expected = planned.as_ref().map(|p| (p.dtype, p.bytes()));
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let len = tensor.numel() * element_bytes(tensor.kind());
        assert_eq!(expected, dtype_of(tensor.kind()).map(|dtype| (dtype, len as u64)));
        let mut own = blake3::Hasher::new();
        // The tensor's memory may be others' too: what is hashed and what is written are one copy.
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK_BYTES.min(len).max(buffer.len()), 0);
        for start in (0..len).step_by(CHUNK_BYTES) {
            let chunk = &mut buffer[..CHUNK_BYTES.min(len - start)];
            copy_bytes(&tensor, start, chunk);
            self.put(chunk, &mut own)?;
        }
        self.buffer = buffer;
        Ok(own.finalize())
    }

    fn put(&mut self, chunk: &[u8], own: &mut blake3::Hasher) -> Result<()> {
        let Self { disk, path, file, hasher, .. } = self;
        let hash = || {
            own.update_rayon(chunk);
            hasher.update_rayon(chunk);
        };
        let (_, written) = rayon::join(hash, || disk.write_all(file, chunk));
        written.map_err(io_error("write", path))?;
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// Syncs the file.
    ///
    /// # Panics
    /// When planned tensors are missing: a bug of the caller.
    pub(crate) fn finish(self) -> Result<FileRecord> {
        assert_eq!(self.plan.len(), 0, "{} lacks planned tensors", self.path.display());
        self.disk.sync_file(&self.file).map_err(io_error("sync", &self.path))?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileRecord { name, bytes: self.bytes, digest: self.hasher.finalize().to_hex().to_string() })
    }
}

/// An open file and the places of its tensors.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Where the first tensor starts.
    data_start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: HashMap<String, String>,
}

impl TensorFile {
    /// Opens a file and checks its header against its size.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let damaged = |what: String| TensorFileError::Damaged { path: path.to_owned(), what };
        let file = File::open(path).map_err(io_error("open", path))?;
        let size = file.metadata().map_err(io_error("open", path))?.len();
        if size < LENGTH_BYTES {
            return Err(damaged(format!("{size} bytes are too few for a safetensors file")));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact_at(&mut length, 0).map_err(io_error("read", path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES.min(size - LENGTH_BYTES) {
            return Err(damaged(format!("its header claims {length} of {size} bytes")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, LENGTH_BYTES).map_err(io_error("read", path))?;
        // Deserialising checks that the tensors follow each other without holes or overlaps, in sizes that fit their
        // shapes.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(format!("its header is no safetensors header ({error})")))?;
        let data_start = LENGTH_BYTES + length;
        let data_bytes = metadata.data_len() as u64;
        if size - data_start != data_bytes {
            let found = size - data_start;
            return Err(damaged(format!(
                "{found} bytes of tensors, where its header describes {data_bytes}"
            )));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { path: path.to_owned(), file, bytes: size, data_start, tensors, metadata })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor, by name.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// What the file says about itself beside its tensors.
    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// blake3 of the whole file.
    pub(crate) fn digest(&self) -> Result<blake3::Hash> {
        self.hash(0..self.bytes)
    }

    /// blake3 of a tensor's data.
    pub(crate) fn tensor_digest(&self, info: &TensorInfo) -> Result<blake3::Hash> {
        let (start, end) = info.data_offsets;
        self.hash(self.data_start + start as u64..self.data_start + end as u64)
    }

    fn hash(&self, range: Range<u64>) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES.min((range.end - range.start) as usize)];
        let mut position = range.start;
        while position < range.end {
            let length = buffer.len().min((range.end - position) as usize);
            let chunk = &mut buffer[..length];
            self.file.read_exact_at(chunk, position).map_err(io_error("read", &self.path))?;
            hasher.update_rayon(chunk);
            position += length as u64;
        }
        Ok(hasher.finalize())
    }

    /// The elements `range` of a tensor as a flat CPU tensor of the stored kind.
    ///
    /// # Panics
    /// When the range leaves the tensor, or libtorch has no such kind: callers look at `info` first.
    pub(crate) fn read(&self, info: &TensorInfo, range: Range<usize>) -> Result<Tensor> {
        let kind = kind_of(info.dtype).unwrap_or_else(|| unreachable!("callers refuse {:?}", info.dtype));
        let mut out = OwnedTensor::empty(&[range.len() as i64], kind);
        self.read_into(info, range, out.bytes_mut(), None)?;
        Ok(out.into_tensor())
    }

    /// The bytes of the elements `range` of a tensor, which fill `out`, hashed on the way in if asked.
    ///
    /// # Panics
    /// When the range leaves the tensor, or is not as long as `out`.
    pub(crate) fn read_into(
        &self,
        info: &TensorInfo,
        range: Range<usize>,
        out: &mut [u8],
        mut hasher: Option<&mut blake3::Hasher>,
    ) -> Result<()> {
        let width = info.dtype.bitsize() / 8;
        assert!(range.end * width <= info.data_offsets.1 - info.data_offsets.0);
        assert_eq!(range.len() * width, out.len());
        let mut position = self.data_start + (info.data_offsets.0 + range.start * width) as u64;
        // What has been read is hashed while the next part is read, whose pieces every core reads at once: the first
        // touch of fresh memory costs as much as the copy.
        let mut unhashed: &[u8] = &[];
        for part in out.chunks_mut(PART_BYTES) {
            let read = || {
                part.par_chunks_mut(CHUNK_BYTES).enumerate().try_for_each(|(i, chunk)| {
                    self.file.read_exact_at(chunk, position + (i * CHUNK_BYTES) as u64)
                })
            };
            let hash = || {
                hasher.as_mut().map(|hasher| hasher.update_rayon(unhashed));
            };
            rayon::join(hash, read).1.map_err(io_error("read", &self.path))?;
            position += part.len() as u64;
            unhashed = part;
        }
        if let Some(hasher) = hasher {
            hasher.update_rayon(unhashed);
        }
        Ok(())
    }
}
