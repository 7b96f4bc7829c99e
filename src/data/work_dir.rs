//! A directory that appears whole, or not at all.

use crate::error::Hint;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Held locked by the program that writes a directory, so that others can tell it from what a killed one left.
pub(super) const LOCK: &str = "lock";

/// A directory under construction beside its destination; dropped, it is deleted.
pub(super) struct WorkDir {
    dir: TempDir,
    _lock: File,
}

impl WorkDir {
    /// Makes one for `out`, and deletes those that killed programs left there.
    pub(super) fn create(out: &Path) -> Result<Self> {
        let parent = parent(out);
        let context = || format!("cannot write in {}", parent.display());
        let hint = "free room there or set --runs-dir";
        std::fs::create_dir_all(parent).with_context(context).hint(hint)?;
        let prefix = format!(".{}.partial-", out.file_name().unwrap_or_default().to_string_lossy());
        remove_abandoned(parent, &prefix).with_context(context).hint(hint)?;
        let dir = builder(&prefix).tempdir_in(parent).with_context(context).hint(hint)?;
        let lock = File::create(dir.path().join(LOCK)).with_context(context).hint(hint)?;
        lock.lock().with_context(context).hint(hint)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts the complete directory at `out`. An older one is moved aside first and deleted last.
    pub(super) fn commit(self, out: &Path) -> Result<()> {
        let context = || format!("cannot put the prepared tokens at {}", out.display());
        let parent = parent(out);
        let older = builder(".replaced-").tempdir_in(parent).with_context(context)?;
        match std::fs::rename(out, older.path().join("old")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(context),
            _ => {}
        }
        std::fs::remove_file(self.path().join(LOCK)).with_context(context)?;
        File::open(self.path()).and_then(|dir| dir.sync_all()).with_context(context)?;
        std::fs::rename(self.path(), out).with_context(context)?;
        let _ = self.dir.keep();
        File::open(parent).and_then(|dir| dir.sync_all()).with_context(context)
    }
}

fn parent(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Directories as `mkdir` makes them, where the crate's own default shuts other users out.
fn builder(prefix: &str) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(Permissions::from_mode(0o777));
    builder
}

fn remove_abandoned(parent: &Path, prefix: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // Without a lock file its owner is about to make one, or about to rename it: not abandoned.
        let abandoned = File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if abandoned {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
