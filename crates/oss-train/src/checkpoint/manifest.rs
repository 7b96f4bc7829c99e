//! `manifest.json`: the contents of a checkpoint and their digests.

use std::{collections::BTreeMap, path::Path};

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, OPTIMIZER_PREFIX, Result};
use crate::tensor_file::FileRecord;
use oss_runs::storage::is_plain_name;

/// Incremented when the meaning of the manifest or of the files changes.
pub(super) const FORMAT: u64 = 1;
/// Name of the file.
pub(super) const FILE_NAME: &str = "manifest.json";

/// The manifest without its own digest, which comes last in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u64,
    pub step: u64,
    pub state: Value,
    pub weights_digest: String,
    pub files: Vec<FileRecord>,
    pub tensors: Vec<TensorRecord>,
}

/// A whole tensor and the pieces that make it up, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TensorRecord {
    pub name: String,
    pub shape: Vec<i64>,
    pub dtype: Dtype,
    pub pieces: Vec<Piece>,
}

/// Flattened elements `start..end` of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub start: i64,
    pub end: i64,
    pub file: String,
    /// Name of the piece inside its file.
    pub key: String,
    /// BLAKE3 digest of its bytes, in hex.
    pub digest: String,
}

/// What one rank wrote. Ranks send it as JSON to the leader, which commits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankFile {
    pub(super) file: FileRecord,
    pub(super) pieces: Vec<RankPiece>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RankPiece {
    pub name: String,
    pub shape: Vec<i64>,
    pub dtype: Dtype,
    pub piece: Piece,
}

impl TensorRecord {
    pub(super) fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Why the pieces do not cover the tensor exactly once; `None` if they do.
    fn gap(&self) -> Option<String> {
        let counted = |numel: i64, dim: &i64| (*dim >= 0).then(|| numel.checked_mul(*dim))?;
        let Some(numel) = self.shape.iter().try_fold(1, counted) else {
            return Some(format!("{} has the invalid shape {:?}", self.name, self.shape));
        };
        let mut end = 0;
        for piece in &self.pieces {
            if piece.start != end || piece.end < piece.start {
                let what = if piece.start > end { "a hole" } else { "an overlap" };
                let (low, high) = (end.min(piece.start), end.max(piece.start));
                return Some(format!("{} has {what} at elements {low}..{high}", self.name));
            }
            end = piece.end;
        }
        (end != numel).then(|| format!("{} has {end} of its {numel} elements", self.name))
    }
}

impl Manifest {
    /// Combines what the ranks wrote. Fails if pieces leave holes, overlap or disagree about shape or dtype.
    pub(super) fn join(step: u64, state: Value, ranks: Vec<RankFile>) -> Result<Self> {
        let mut files = Vec::new();
        let mut tensors: BTreeMap<String, TensorRecord> = BTreeMap::new();
        for rank in ranks {
            files.push(rank.file);
            for RankPiece { name, shape, dtype, piece } in rank.pieces {
                let record = tensors.entry(name).or_insert_with_key(|name| TensorRecord {
                    name: name.clone(),
                    shape: shape.clone(),
                    dtype,
                    pieces: Vec::new(),
                });
                if record.shape != shape || record.dtype != dtype {
                    let name = &record.name;
                    return Err(Error::Pieces(format!("{name} differs in shape or dtype between ranks")));
                }
                record.pieces.push(piece);
            }
        }
        let mut tensors: Vec<_> = tensors.into_values().collect();
        for tensor in &mut tensors {
            tensor.pieces.sort_by_key(|piece| (piece.start, piece.end));
            if let Some(gap) = tensor.gap() {
                return Err(Error::Pieces(gap));
            }
        }
        let weights_digest = weights_digest(&tensors);
        Ok(Self { format: FORMAT, step, state, weights_digest, files, tensors })
    }

    /// The contents of the file: a JSON object whose last field is the digest of everything before that field.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string(self)
            .unwrap_or_else(|error| unreachable!("all keys of a manifest are strings: {error}"));
        text.pop();
        let digest = blake3::hash(text.as_bytes()).to_hex();
        text.push_str(&closing(&digest));
        text.into_bytes()
    }

    /// Parses the file's contents; `directory` is for error messages.
    pub(super) fn from_bytes(bytes: &[u8], directory: &Path) -> Result<Self> {
        let damaged =
            |what: &str| Error::Damaged { path: directory.to_owned(), what: format!("{FILE_NAME} {what}") };
        let body_bytes = bytes.len().checked_sub(closing(&"0".repeat(64)).len());
        let body = body_bytes.map_or(&[][..], |length| &bytes[..length]);
        let digest = blake3::hash(body).to_hex();
        if bytes != [body, closing(&digest).as_bytes()].concat() {
            return Err(damaged("does not match its own digest"));
        }
        let object = [body, b"}"].concat();
        let format = serde_json::from_slice::<Value>(&object).ok().and_then(|v| v["format"].as_u64());
        if let Some(format) = format.filter(|format| *format > FORMAT) {
            return Err(Error::Newer { path: directory.to_owned(), format, supported: FORMAT });
        }
        let manifest: Self = serde_json::from_slice(&object)
            .map_err(|error| damaged(&format!("cannot be parsed ({error})")))?;
        // Digests detect damage, not malice: file names must still not point outside the directory.
        if let Some(file) = manifest.files.iter().find(|file| !is_plain_name(&file.name)) {
            return Err(damaged(&format!("lists a file outside its directory: {:?}", file.name)));
        }
        match manifest.tensors.iter().find_map(TensorRecord::gap) {
            Some(gap) => Err(damaged(&format!("says that {gap}"))),
            None => Ok(manifest),
        }
    }
}

fn closing(digest: &str) -> String {
    format!(",\"digest\":\"{digest}\"}}\n")
}

/// A digest of the weights: their names, shapes, dtypes, and the digests of their pieces. It is equal for equal weights
/// that are split in the same way.
fn weights_digest(tensors: &[TensorRecord]) -> String {
    let mut hasher = blake3::Hasher::new();
    for tensor in tensors.iter().filter(|tensor| !tensor.name.starts_with(OPTIMIZER_PREFIX)) {
        let pieces: Vec<_> = tensor.pieces.iter().map(|p| (p.start, p.end, &p.digest)).collect();
        let line = serde_json::json!([tensor.name, tensor.shape, tensor.dtype, pieces]);
        hasher.update(line.to_string().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
