//! Prepared tokens: raw little-endian u32, memory-mapped.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::mapped::MappedU32;
use oss_config::error::UserError;

/// The tokens of one `.bin` file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    tokens: MappedU32,
}

impl TokenFile {
    /// Maps `path`, which must contain `expected` tokens.
    ///
    /// # Errors
    /// If the file cannot be read, or its length differs from its index.
    pub fn open(path: &Path, expected: u64) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let tokens = MappedU32::new(&file).with_context(|| format!("cannot map {}", path.display()))?;
        ensure!(
            tokens.len() as u64 == expected,
            UserError::failed(format!(
                "{} has {} tokens instead of {expected}: the file is damaged",
                path.display(),
                tokens.len()
            ))
            .hint("rerun with `--force prepare`")
        );
        Ok(Self { path: path.to_owned(), tokens })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for TokenFile {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.tokens
    }
}
