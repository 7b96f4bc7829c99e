//! The file-system calls of a commit, in one place so that a test can make any of them fail.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The calls of a commit. Each passes [`Disk::gate`] first, where a test may fail it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<super::faults::Faults>,
}

impl Disk {
    #[cfg(not(test))]
    fn gate(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn gate(&self) -> io::Result<()> {
        self.faults.gate()
    }

    pub(crate) fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.gate()?;
        fs::create_dir(path)
    }

    /// A new file, readable by all that the umask allows.
    pub(crate) fn create_file(&self, path: &Path) -> io::Result<File> {
        self.gate()?;
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    pub(crate) fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if let Err(fault) = self.gate() {
            // A disk fills up in the middle of a write, not between two.
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(fault);
        }
        file.write_all(bytes)
    }

    pub(crate) fn sync_file(&self, file: &File) -> io::Result<()> {
        self.gate()?;
        file.sync_all()
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.gate()?;
        File::open(path)?.sync_all()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate()?;
        fs::rename(from, to)
    }

    pub(crate) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate()?;
        fs::remove_dir_all(path)
    }
}

/// Opens a directory and locks it for as long as the file lives, so that others see it [`in_use`]. The lock follows
/// the directory through renames and ends with the process.
///
/// A file system without locks offers no other protection either, so that failing to lock is no error.
pub(crate) fn hold(path: &Path) -> io::Result<File> {
    let directory = File::open(path)?;
    let _ = directory.try_lock();
    Ok(directory)
}

/// Whether somebody holds a lock on this directory.
pub(crate) fn in_use(path: &Path) -> bool {
    let taken = |directory: File| matches!(directory.try_lock(), Err(fs::TryLockError::WouldBlock));
    File::open(path).is_ok_and(taken)
}

/// Why a directory has a name beside its final one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sibling {
    /// Still being written.
    Temporary,
    /// Moved aside by the version that takes its place.
    Replaced,
    /// About to be deleted.
    Removed,
}

impl Sibling {
    const ALL: [Self; 3] = [Self::Temporary, Self::Replaced, Self::Removed];

    fn infix(self) -> &'static str {
        match self {
            Self::Temporary => ".tmp-",
            Self::Replaced => ".replaced-",
            Self::Removed => ".removed-",
        }
    }

    /// A fresh name beside `target`, such as `step-00000500.tmp-1f0c23a9b4d5e677`.
    pub(crate) fn of(self, target: &Path) -> PathBuf {
        use std::hash::{BuildHasher, RandomState};
        // Each RandomState is keyed by the system's randomness and a counter.
        let id = RandomState::new().hash_one(std::process::id());
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!("{}{id:016x}", self.infix()));
        target.with_file_name(name)
    }

    /// The final name and the kind of a sibling's name; none for other names.
    pub(crate) fn parse(name: &str) -> Option<(&str, Self)> {
        Self::ALL.into_iter().find_map(|kind| {
            let (target, id) = name.rsplit_once(kind.infix())?;
            (id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some((target, kind))
        })
    }
}

/// Puts the complete directory `complete` at `target`, which it replaces, and makes that durable.
///
/// Every file in `complete` must be synced already. When this fails, `target` is what it was or the new version; when
/// the process dies between the two renames, the old version is left as [`Sibling::Replaced`].
pub(crate) fn swap_directory(disk: &Disk, complete: &Path, target: &Path) -> io::Result<()> {
    disk.sync_dir(complete)?;
    let aside = target.symlink_metadata().is_ok().then(|| Sibling::Replaced.of(target));
    if let Some(aside) = &aside {
        disk.rename(target, aside)?;
    }
    if let Err(error) = disk.rename(complete, target) {
        if let Some(aside) = &aside {
            disk.rename(aside, target)?;
        }
        return Err(error);
    }
    disk.sync_dir(target.parent().unwrap_or(Path::new(".")))?;
    if let Some(aside) = aside
        && let Err(error) = disk.remove_dir_all(&aside)
    {
        tracing::warn!("cannot remove {}: {error}\nhint: delete it by hand", aside.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sibling_names_are_recognised_and_others_left_alone() {
        for kind in Sibling::ALL {
            let name = kind.of(Path::new("/runs/step-00000007"));
            let name = name.file_name().unwrap().to_str().unwrap();
            assert_eq!(Sibling::parse(name), Some(("step-00000007", kind)));
        }
        for other in ["step-00000007", "notes.tmp-mine", "step-00000007.tmp-", "step-1.tmp-zzzzzzzzzzzzzzzz"]
        {
            assert_eq!(Sibling::parse(other), None);
        }
        assert_ne!(Sibling::Temporary.of(Path::new("a")), Sibling::Temporary.of(Path::new("a")));
    }
}
