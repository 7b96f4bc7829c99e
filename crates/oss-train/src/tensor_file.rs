//! safetensors files, written one tensor at a time and read by range.
//!
//! The safetensors crate needs all tensors in memory, does not sync, and creates files with mode 0600. Here, a file is
//! planned first (its header follows from names, dtypes and shapes), then written one tensor at a time in the planned
//! order, and every byte is hashed on the way. Reading trusts nothing: the size of the header is limited, and its
//! tensors must cover the rest of the file without holes or overlaps.

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

/// The maximum header size that safetensors readers accept.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes that are written, read and hashed at a time.
const CHUNK_BYTES: usize = 8 << 20;
/// Bytes of a tensor that are read in parallel before they are hashed.
const PART_BYTES: usize = 4 * CHUNK_BYTES;
/// Size of the length field before the header.
const LENGTH_BYTES: u64 = 8;

/// An error while reading or writing a tensor file.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// An I/O error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The contents are not a valid tensor file.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TensorFileError {
    let path = path.to_owned();
    move |source| TensorFileError::Io { action, path, source }
}

type Result<T, E = TensorFileError> = std::result::Result<T, E>;

/// The safetensors dtype of a kind; `None` if it is not supported.
pub(crate) fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|(k, _)| *k == kind).map(|(_, dtype)| *dtype)
}

/// The kind of a safetensors dtype; `None` if it is not supported.
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

/// A tensor to be written to a file.
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

/// A written file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Name in its directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 digest of the contents, in hex.
    pub digest: String,
}

/// The bytes before the tensors: the length, then JSON, padded with spaces so that the data is aligned.
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

/// A file that is being written in the order of its plan.
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
    /// Creates the file, which must not exist yet, and writes its header.
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
    /// If the tensor does not match the plan, which is a bug in the caller.
    pub(crate) fn write(&mut self, tensor: &Tensor) -> Result<blake3::Hash> {
        let planned = self.plan.next();
        let expected = planned.as_ref().map(|p| (p.dtype, p.bytes()));
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let len = tensor.numel() * element_bytes(tensor.kind());
        assert_eq!(expected, dtype_of(tensor.kind()).map(|dtype| (dtype, len as u64)));
        let mut own = blake3::Hasher::new();
        // The tensor's memory may be shared: hashing and writing the same copy keeps them consistent.
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

    /// Syncs the file and returns its record.
    ///
    /// # Panics
    /// If planned tensors are missing, which is a bug in the caller.
    pub(crate) fn finish(self) -> Result<FileRecord> {
        assert_eq!(self.plan.len(), 0, "planned tensors are missing from {}", self.path.display());
        self.disk.sync_file(&self.file).map_err(io_error("sync", &self.path))?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileRecord { name, bytes: self.bytes, digest: self.hasher.finalize().to_hex().to_string() })
    }
}

/// An open file and the positions of its tensors.
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
            return Err(damaged(format!("a file of {size} bytes is too small for safetensors")));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact_at(&mut length, 0).map_err(io_error("read", path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES.min(size - LENGTH_BYTES) {
            return Err(damaged(format!("the header length {length} is invalid for a file of {size} bytes")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, LENGTH_BYTES).map_err(io_error("read", path))?;
        // Deserializing checks that the tensors follow each other without holes or overlaps, and that their sizes match
        // their shapes.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(format!("invalid safetensors header ({error})")))?;
        let data_start = LENGTH_BYTES + length;
        let data_bytes = metadata.data_len() as u64;
        if size - data_start != data_bytes {
            let found = size - data_start;
            return Err(damaged(format!(
                "{found} bytes of tensor data, but the header describes {data_bytes}"
            )));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { path: path.to_owned(), file, bytes: size, data_start, tensors, metadata })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, by name.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The metadata in the header.
    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// BLAKE3 digest of the whole file.
    pub(crate) fn digest(&self) -> Result<blake3::Hash> {
        self.hash(0..self.bytes)
    }

    /// BLAKE3 digest of a tensor's data.
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

    /// Reads the elements `range` of a tensor: 1-D, on the CPU, in the stored dtype.
    ///
    /// # Panics
    /// If the range is out of bounds, or the dtype is not supported; callers check `info` first.
    pub(crate) fn read(&self, info: &TensorInfo, range: Range<usize>) -> Result<Tensor> {
        let kind = kind_of(info.dtype).unwrap_or_else(|| unreachable!("callers refuse {:?}", info.dtype));
        let mut out = OwnedTensor::empty(&[range.len() as i64], kind);
        self.read_into(info, range, out.bytes_mut(), None)?;
        Ok(out.into_tensor())
    }

    /// Reads the elements `range` of a tensor into `out`, and hashes them on the way if there is a hasher.
    ///
    /// # Panics
    /// If the range is out of bounds, or its size differs from that of `out`.
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
        // A part is hashed while the next one is read. All cores read the chunks of a part in parallel, because the
        // first access to newly allocated memory costs as much as the copy.
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
