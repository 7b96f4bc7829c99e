//! Files that a stage wrote, as a manifest keeps them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A file that a stage wrote, as its record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path inside the run directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// blake3 of its content, in hexadecimal.
    pub blake3: String,
}

impl OutputFile {
    /// Looks at a small file that was just written under `root`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(root: &Path, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            path: path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned(),
            bytes: content.len() as u64,
            blake3: blake3::hash(&content).to_hex().to_string(),
        })
    }
}
