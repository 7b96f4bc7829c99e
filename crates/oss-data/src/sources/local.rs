//! Local files: expands patterns to paths, and records the state of each file when it was found.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use oss_config::error::UserError;

use oss_runs::storage::refuse_lfs_pointer;

use super::digests::DigestCache;
use super::format::Format;
use super::stamp::Stamp;
use super::{FileIdentity, Watch, folder};

/// A file to read, as it was when it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    path: PathBuf,
    format: Format,
    stamp: Stamp,
    blake3: String,
}

impl LocalFile {
    /// Describes `path` without hashing it, for files whose contents are known by other means.
    ///
    /// # Errors
    /// If the file is missing, empty, unreadable or a Git LFS pointer, or has an unsupported format.
    pub fn unhashed(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!(
                    UserError::failed(format!("{}: no such file", path.display()))
                        .hint("correct the name in dataset.files")
                )
            }
            _ => anyhow!(error).context(format!("cannot access {}", path.display())),
        })?;
        let format = Format::of_path(path)?;
        if metadata.len() == 0 {
            bail!(
                UserError::failed(format!("{}: the file is empty", path.display()))
                    .hint("remove it from dataset.files or download it again")
            );
        }
        refuse_lfs_pointer(path)?;
        Ok(Self { path: path.into(), format, stamp: Stamp::of(&metadata), blake3: String::new() })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Format of the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    /// Digest of its contents, for keys.
    pub(super) fn identity(&self) -> FileIdentity {
        FileIdentity { format: self.format, blake3: self.blake3.clone() }
    }

    /// Fails if the file has changed since it was found, which would invalidate keys made from it.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let metadata =
            fs::metadata(&self.path).with_context(|| format!("cannot access {}", self.path.display()))?;
        if Stamp::of(&metadata) != self.stamp {
            bail!(
                UserError::failed(format!("{}: the file changed while it was in use", self.path.display()))
                    .hint("run again")
            );
        }
        Ok(())
    }
}

/// Expands the patterns in order, with the matches of each (or the files in a directory) sorted by path and duplicates
/// removed. All files are checked
/// before the first is hashed, so that a wrong name fails fast.
pub fn resolve(patterns: &[String], digest_cache: Option<&Path>, watch: Watch<'_>) -> Result<Vec<LocalFile>> {
    if patterns.is_empty() {
        bail!(UserError::failed("dataset.files is empty").hint("name at least one file"));
    }
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for pattern in patterns {
        for path in expand(pattern)? {
            if seen.insert(path.clone()) {
                files.push(LocalFile::unhashed(&path)?);
            }
        }
    }
    let mut cache = DigestCache::open(digest_cache);
    for file in &mut files {
        file.blake3 = cache.digest(&file.path, file.stamp, watch)?;
    }
    cache.save();
    Ok(files)
}

fn expand(pattern: &str) -> Result<Vec<PathBuf>> {
    if pattern.contains('\0') {
        bail!(
            UserError::failed(format!("dataset.files contains {pattern:?}, which has a NUL"))
                .hint("correct the name")
        );
    }
    let literal = PathBuf::from(pattern);
    // A name that itself contains `*` or `[` takes precedence.
    if literal.is_dir() {
        return folder::files(&literal);
    }
    if literal.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(vec![literal]);
    }
    let matches = glob::glob(pattern).map_err(|error| {
        anyhow!(
            UserError::failed(format!("dataset.files: the pattern {pattern:?} is malformed ({error})"))
                .hint("correct it")
        )
    })?;
    let mut paths = Vec::new();
    for path in matches {
        let path = path.map_err(|error| {
            let place = error.path().display().to_string();
            anyhow!(error).context(format!("cannot read {place}, which {pattern:?} searches"))
        })?;
        if !path.is_dir() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!(
            UserError::failed(format!("dataset.files: the pattern {pattern:?} matches no file"))
                .hint("correct it or put the files there")
        );
    }
    paths.sort();
    Ok(paths)
}
