//! Helpers shared by the fuzz targets: files for readers that take a path.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use oss_data::sources::{ReadOptions, SourceFiles, Watch};
use oss_config::{Dataset, Origin};
use tempfile::TempDir;

/// A directory that lives as long as the target; every input overwrites its files. `scripts/fuzz.sh` points `TMPDIR` at
/// a memory-backed file system, and cleans up after a crash.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory can be created"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).expect("the temporary directory can be written");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Longest document that the targets accept: small, so that a kilobyte of compressed data cannot exhaust the time
/// limit.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Most documents to read from one input.
const MAX_DOCUMENTS: usize = 4096;

/// Reads a file like `dataset.files`; each document must be text or an error.
pub fn read_documents(path: &Path) {
    let options = ReadOptions {
        max_document_bytes: MAX_DOCUMENT_BYTES,
        ..ReadOptions::training(&Dataset::default(), None)
    };
    let pattern = [path.to_str().expect("temporary names are UTF-8").to_owned()];
    let Ok(source) = SourceFiles::resolve(&Origin::Files(&pattern), &options, Watch::quiet()) else { return };
    let Ok(documents) = source.documents(Watch::quiet()) else { return };
    for document in documents.take(MAX_DOCUMENTS).map_while(Result::ok) {
        assert!(document.text.len() <= MAX_DOCUMENT_BYTES);
    }
}

/// Some crates panic on damaged files, and the readers turn that into errors. libFuzzer's hook would abort on any panic;
/// with this hook, only a panic that escapes a reader counts.
pub fn only_escaping_panics_count() {
    panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}
