//! Every path of a run, its manifest and its locks.

use std::{io, path::Path};

/// Bytes free for this user on the file system that holds `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    fs4::available_space(path)
}
