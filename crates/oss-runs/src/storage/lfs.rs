//! Git LFS pointers: small text files that stand in for large files which were not downloaded.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use oss_config::error::UserError;

/// The first line of a pointer, as the specification has it.
const FIRST_LINE: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

/// The largest pointer, as the specification has it.
const MAX_BYTES: u64 = 1024;

/// Refuses a file that is a Git LFS pointer. A file that cannot be read is left to its reader.
///
/// # Errors
/// If it is a pointer; the hint says how to get the file itself.
pub fn refuse_lfs_pointer(path: &Path) -> Result<(), UserError> {
    if !is_pointer(path).unwrap_or(false) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Err(UserError::failed(format!("{}: this is a Git LFS pointer, not the file itself", path.display()))
        .hint(format!("download it with `git -C {} lfs pull`", folder.display())))
}

fn is_pointer(path: &Path) -> io::Result<bool> {
    if fs::metadata(path)?.len() > MAX_BYTES {
        return Ok(false);
    }
    let mut start = Vec::new();
    File::open(path)?.take(FIRST_LINE.len() as u64).read_to_end(&mut start)?;
    Ok(start == FIRST_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    #[test]
    fn pointers_are_refused_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
        let error = ErrorReport::of(refuse_lfs_pointer(&path).unwrap_err());
        assert!(error.message.contains("model.safetensors: this is a Git LFS pointer"), "{error}");
        assert!(error.hints[0].contains("lfs pull"), "{error}");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1 is how a pointer starts").unwrap();
        refuse_lfs_pointer(&path).unwrap();
        refuse_lfs_pointer(&folder.path().join("none")).unwrap();
    }
}
