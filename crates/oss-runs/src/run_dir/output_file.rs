//! Files written by a stage, as recorded in the manifest.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A file written by a stage, as recorded in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path inside the run directory.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 hash of its contents, in hexadecimal.
    pub blake3: String,
}

impl OutputFile {
    /// Describes a small file that was just written under `root`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(root: &Path, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            path: path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned(),
            bytes: content.len() as u64,
            blake3: blake3::hash(&content).to_hex().to_string(),
        })
    }
}
