//! Atomic files: a temporary file, fsync, rename, fsync of the directory.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;

/// Prefix of unfinished files: `.<name>.unfinished-<random>`, next to the file they will become.
const UNFINISHED: &str = ".unfinished-";

/// Replaces `path` with what `write` writes, or leaves it unchanged.
///
/// The data is durable when this returns. The new file's mode is 0666 minus the umask (temporary files are created with
/// 0600, which would hide a run from the user's group).
///
/// # Errors
/// Returns the error of `write` or of the system (no space, no permission). `path` is then unchanged and nothing is
/// left next to it.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} does not name a file", path.display()))
    })?;
    let dir = parent(path);
    let unfinished = tempfile::Builder::new()
        .prefix(&format!(".{}{UNFINISHED}", name.to_string_lossy()))
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)?;
    let mut buffered = BufWriter::with_capacity(1 << 18, unfinished);
    write(&mut buffered)?;
    let unfinished = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(path).map_err(|failed| failed.error)?;
    sync_dir(dir)
}

/// Writes `value` as indented JSON with a trailing newline, using [`write_atomic`].
///
/// # Errors
/// As for [`write_atomic`]; a value that JSON cannot represent is [`io::ErrorKind::InvalidData`].
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> io::Result<()> {
    write_atomic(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// Makes the entries of `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether a file with this name is an unfinished file of [`write_atomic`].
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.contains(UNFINISHED)
}

/// Removes the unfinished files that a killed process left in `dir`. Only the holder of the run's write lock may do
/// this.
pub(super) fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_unfinished(&name) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Free bytes available to this user on the file system of `path`, which need not exist yet.
///
/// # Errors
/// If the system does not report it.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let absolute = std::path::absolute(path)?;
    let existing = absolute.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(existing)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The parent directory of `path`; the working directory for a bare file name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        for text in ["first", "second"] {
            write_atomic(&path, |out| out.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(dir.path()), ["a.txt"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, |out| out.write_all(b"good")).unwrap();
        let failed = write_atomic(&path, |out| {
            out.write_all(b"half of it")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "good");
        assert_eq!(names(dir.path()), ["a.txt"]);
    }

    #[test]
    fn the_mode_follows_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        File::create(&plain).unwrap();
        let atomic = dir.path().join("atomic.json");
        write_json(&atomic, &[1, 2]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&atomic), mode(&plain));
        assert_eq!(fs::read_to_string(&atomic).unwrap(), "[\n  1,\n  2\n]\n");
    }

    #[test]
    fn a_killed_writer_leaves_only_what_the_next_one_removes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".manifest.json.unfinished-x1"), "half").unwrap();
        fs::write(dir.path().join(".keep"), "").unwrap();
        remove_unfinished(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".keep"]);
    }

    #[test]
    fn free_space_of_a_path_that_does_not_exist_yet() {
        assert!(free_bytes(Path::new("a/folder/to/come")).unwrap() > 0);
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
    }

    #[test]
    fn a_path_without_a_file_name_is_an_error() {
        let failed = write_atomic(Path::new("/"), |_| Ok(())).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::InvalidInput);
    }
}
