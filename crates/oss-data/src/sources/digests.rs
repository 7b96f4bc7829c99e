//! Cached digests of local files, so that a large file is hashed only once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use super::{Activity, ActivityKind, Watch};

const VERSION: u32 = 1;
const BUFFER_BYTES: usize = 4 << 20;

/// A file modified less than this long before it was hashed is hashed again next time: a second change within one tick
/// of the file system's clock would not change its timestamp.
const SETTLED_NS: i64 = 2_000_000_000;

/// Caches digests by path, size, time and inode in a JSON file. A lost or damaged cache only costs time.
pub struct DigestCache {
    path: Option<PathBuf>,
    stored: Stored,
    changed: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    version: u32,
    files: BTreeMap<String, CachedDigest>,
}

#[derive(Serialize, Deserialize)]
struct CachedDigest {
    #[serde(flatten)]
    stamp: Stamp,
    blake3: String,
}

impl DigestCache {
    /// Loads the cache at `path`; without a path, nothing is cached.
    pub fn open(path: Option<&Path>) -> Self {
        let stored = path
            .and_then(|path| fs::read(path).ok())
            .and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok())
            .filter(|stored| stored.version == VERSION)
            .unwrap_or(Stored { version: VERSION, files: BTreeMap::new() });
        Self { path: path.map(Path::to_path_buf), stored, changed: false }
    }

    /// BLAKE3 hash of the file, in hexadecimal; cached, or computed on all cores.
    ///
    /// # Errors
    /// If the file cannot be read; errors of `watch.keep_going`.
    pub fn digest(&mut self, path: &Path, stamp: Stamp, watch: Watch<'_>) -> Result<String> {
        let key = path.to_str();
        if let Some(known) =
            key.and_then(|key| self.stored.files.get(key)).filter(|known| known.stamp == stamp)
        {
            return Ok(known.blake3.clone());
        }
        let blake3 = hash(path, stamp.bytes, watch)?;
        if let Some(key) = key.filter(|_| settled(stamp)) {
            self.stored.files.insert(key.into(), CachedDigest { stamp, blake3: blake3.clone() });
            self.changed = true;
        }
        Ok(blake3)
    }

    /// Removes entries of files that no longer exist, and returns the fraction of entries removed.
    pub fn forget_gone(&mut self) -> f64 {
        let before = self.stored.files.len();
        self.stored.files.retain(|path, _| !fs::exists(path).is_ok_and(|there| !there));
        let gone = before - self.stored.files.len();
        self.changed |= gone > 0;
        gone as f64 / before.max(1) as f64
    }

    /// Writes new entries. A failure is only logged, because the cache is not essential.
    pub fn save(&self) {
        let Some(path) = self.path.as_deref().filter(|_| self.changed) else { return };
        if let Err(error) = self.write(path) {
            tracing::warn!("cannot cache the digests of data files: {error:#}");
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("the path has no parent directory")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        file.write_all(&serde_json::to_vec_pretty(&self.stored)?)?;
        file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// Digests of arbitrary files, in order, cached in `cache` like those of sources.
///
/// # Errors
/// If a file cannot be read; errors of `watch.keep_going`.
pub fn digest_files(paths: &[PathBuf], cache: Option<&Path>, watch: Watch<'_>) -> Result<Vec<String>> {
    let mut cache = DigestCache::open(cache);
    let digests = paths
        .iter()
        .map(|path| {
            let metadata = fs::metadata(path).with_context(|| format!("cannot access {}", path.display()))?;
            cache.digest(path, Stamp::of(&metadata), watch)
        })
        .collect();
    cache.save();
    digests
}

fn settled(stamp: Stamp) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    i64::try_from(now).is_ok_and(|now| now - stamp.modified_ns > SETTLED_NS)
}

fn hash(path: &Path, total_bytes: u64, watch: Watch<'_>) -> Result<String> {
    let shown = path.display().to_string();
    let mut file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut done_bytes = 0;
    loop {
        (watch.keep_going)()?;
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {shown}"))?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update_rayon(&buffer[..read]);
        done_bytes += read as u64;
        (watch.progress)(Activity { kind: ActivityKind::Hashing, file: &shown, done_bytes, total_bytes });
    }
}
