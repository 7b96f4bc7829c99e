//! Atomic directories: a directory appears complete or not at all.
//!
//! A directory is written under a temporary name next to its target and renamed when it is complete. If there is an
//! older version, the two are exchanged in one call. On a file system that cannot do that, it takes two: the older
//! version moves aside, then the new one is renamed. A process that dies in between leaves no directory at the target,
//! but both versions next to it, complete; [`current`] finds the older one, and the next writer restores its name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Disk, FileLock};

/// Why a directory has a temporary name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sibling {
    /// Still being written.
    Temporary,
    /// Moved aside by the version that replaces it.
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

    /// A new name next to `target`, such as `step-00000500.tmp-1f0c23a9b4d5e677`.
    pub fn of(self, target: &Path) -> PathBuf {
        use std::hash::{BuildHasher, RandomState};
        // Each RandomState is keyed by the system's randomness and a counter.
        let id = RandomState::new().hash_one(std::process::id());
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!("{}{id:016x}", self.infix()));
        target.with_file_name(name)
    }

    /// The final name and the kind of a temporary name; `None` for other names.
    pub fn parse(name: &str) -> Option<(&str, Self)> {
        Self::ALL.into_iter().find_map(|kind| {
            let (target, id) = name.rsplit_once(kind.infix())?;
            (id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some((target, kind))
        })
    }
}

/// A directory being written next to its target. It is deleted if dropped before it is committed.
#[derive(Debug)]
pub struct StagedDir {
    disk: Disk,
    path: PathBuf,
    target: PathBuf,
    /// Tells others that the directory is not a leftover of a dead process. `None` if the file system has no locks.
    _held: Option<FileLock>,
}

impl StagedDir {
    /// Creates a directory that is to become `target`, whose parent exists.
    ///
    /// # Errors
    /// If the disk is full or a call fails.
    pub fn create(disk: &Disk, target: &Path) -> io::Result<Self> {
        let path = Sibling::Temporary.of(target);
        disk.create_dir(&path)?;
        let mut staged = Self { disk: disk.clone(), path, target: target.to_owned(), _held: None };
        staged._held = FileLock::try_directory(&staged.path)?;
        Ok(staged)
    }

    /// Where to write. Every file must be synced before [`Self::commit`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the complete directory to its target, replacing an older version, and makes that durable.
    ///
    /// # Errors
    /// If the disk is full or a call fails; the target is then either unchanged or the new version.
    pub fn commit(self) -> io::Result<()> {
        swap(&self.disk, &self.path, &self.target)
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        // After a commit, nothing has that name, unless the older version could not be removed from it. The next writer
        // removes what cannot be removed now.
        if self.path.exists() {
            let _ = self.disk.remove_dir_all(&self.path);
        }
    }
}

fn swap(disk: &Disk, complete: &Path, target: &Path) -> io::Result<()> {
    disk.sync_dir(complete)?;
    let older = match target.symlink_metadata() {
        Err(_) => {
            disk.rename(complete, target)?;
            None
        }
        Ok(_) => Some(take_place(disk, complete, target)?),
    };
    disk.sync_dir(parent(target))?;
    if let Some(older) = older
        && let Err(error) = disk.remove_dir_all(&older)
    {
        tracing::warn!("cannot remove {}: {error}\nhint: delete it manually", older.display());
    }
    Ok(())
}

/// Renames `complete` to `target` and returns the new path of the older version.
fn take_place(disk: &Disk, complete: &Path, target: &Path) -> io::Result<PathBuf> {
    match disk.exchange(complete, target) {
        Ok(()) => return Ok(complete.to_owned()),
        Err(error) if !is_unknown(&error) => return Err(error),
        Err(_) => {}
    }
    let aside = Sibling::Replaced.of(target);
    disk.rename(target, &aside)?;
    if let Err(error) = disk.rename(complete, target) {
        disk.rename(&aside, target)?;
        return Err(error);
    }
    Ok(aside)
}

/// Whether the file system or the kernel lacks this call. A file system may report its flags as invalid.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// The newest complete version of the directory `target`: at `target`, or next to it if a process died while replacing
/// it. Returns `target` itself if there is none.
pub fn current(target: &Path) -> PathBuf {
    if target.exists() {
        return target.to_owned();
    }
    let replaced = || {
        let beside =
            siblings(parent(target), |name| Some(name) == target.file_name().and_then(|it| it.to_str()));
        beside.into_iter().find(|(_, kind, _)| *kind == Sibling::Replaced).map(|(path, ..)| path)
    };
    // Its replacement may have been renamed in the meantime.
    replaced().filter(|_| !target.exists()).unwrap_or_else(|| target.to_owned())
}

/// Removes what dead processes left next to the directories in `parent` whose names `is_target` accepts: unfinished,
/// replaced and half-deleted versions. A replaced version whose successor was never renamed gets its name back.
///
/// Call this only as the sole writer. A failure must not keep the caller from writing, so it is only logged.
pub fn clear_leftovers(disk: &Disk, parent: &Path, is_target: impl Fn(&str) -> bool) {
    for (path, kind, target) in siblings(parent, is_target) {
        let cleared = if kind == Sibling::Replaced && !target.exists() {
            disk.rename(&path, &target)
        } else if FileLock::is_held(&path) {
            Ok(())
        } else {
            disk.remove_dir_all(&path)
        };
        if let Err(error) = cleared {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The temporary directories in `parent` for targets that `is_target` accepts, with the paths of the targets.
fn siblings(parent: &Path, is_target: impl Fn(&str) -> bool) -> Vec<(PathBuf, Sibling, PathBuf)> {
    let names = fs::read_dir(parent).into_iter().flatten().flatten();
    let sibling = |name: String| {
        let (target, kind) = Sibling::parse(&name).filter(|(target, _)| is_target(target))?;
        Some((parent.join(&name), kind, parent.join(target)))
    };
    names.filter_map(|entry| entry.file_name().into_string().ok()).filter_map(sibling).collect()
}

fn parent(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, Faults};
    use super::*;

    #[test]
    fn sibling_names_are_recognized_and_others_left_alone() {
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

    /// Two files with the same contents, so that a mix of versions can be told from a complete one.
    fn put(disk: &Disk, target: &Path, version: &str) -> io::Result<()> {
        clear_leftovers(disk, parent(target), |name| name == "data");
        let staged = StagedDir::create(disk, target)?;
        for name in ["a", "b"] {
            let mut file = disk.create_file(&staged.path().join(name))?;
            disk.write_all(&mut file, version.as_bytes())?;
            disk.sync_file(&file)?;
        }
        staged.commit()
    }

    fn version(directory: &Path) -> Option<String> {
        let [a, b] = ["a", "b"].map(|name| fs::read_to_string(directory.join(name)).ok());
        assert_eq!(a, b, "half of each in {}", directory.display());
        a
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    /// Fails call after call of a replacement, with or without `exchange`; returns the number of calls.
    fn survive(fault: Fault, exchange: bool, replacing: bool) -> usize {
        for number in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("data");
            if replacing {
                put(&Disk::default(), &target, "old").unwrap();
            }
            let faults = Faults::at(number, fault);
            let disk = Disk::failing(if exchange { faults } else { faults.without_exchange() });
            let outcome = put(&disk, &target, "new");
            let case = format!("{fault:?} at call {number}, exchange {exchange}: {:?}", names(dir.path()));
            // The next reader.
            let found = version(&current(&target));
            match &outcome {
                Ok(()) => assert_eq!(found.as_deref(), Some("new"), "{case}"),
                Err(_) if replacing => assert!(matches!(found.as_deref(), Some("old" | "new")), "{case}"),
                Err(_) => assert!(matches!(found.as_deref(), None | Some("new")), "{case}"),
            }
            if fault != Fault::Killed {
                assert!(names(dir.path()).iter().all(|name| !name.contains(".tmp-")), "{case}");
            }
            // The next writer, even if it is killed before it has written anything.
            clear_leftovers(&Disk::default(), dir.path(), |name| name == "data");
            assert_eq!(version(&target), found, "{case}");
            put(&Disk::default(), &target, "newer").unwrap();
            assert_eq!(version(&target).as_deref(), Some("newer"), "{case}");
            assert_eq!(names(dir.path()), ["data"], "{case}");
            if !disk.has_failed() {
                outcome.unwrap();
                return number;
            }
        }
        unreachable!("every replacement has a last call")
    }

    #[test]
    fn a_fault_or_kill_at_any_call_leaves_a_complete_version() {
        for fault in [Fault::Once, Fault::Full, Fault::Killed] {
            for exchange in [true, false] {
                assert!(survive(fault, exchange, false) > 9);
                let calls = survive(fault, exchange, true);
                assert!(calls > if exchange { 11 } else { 13 }, "{calls}");
            }
        }
    }

    /// Restoring what a dead process left, killed in turn.
    #[test]
    fn a_kill_during_recovery_loses_nothing() {
        for first in 1..=14 {
            for second in 1..=3 {
                let dir = tempfile::tempdir().unwrap();
                let target = dir.path().join("data");
                put(&Disk::default(), &target, "old").unwrap();
                for number in [first, second] {
                    let disk = Disk::failing(Faults::at(number, Fault::Killed).without_exchange());
                    let _ = put(&disk, &target, "new");
                    let found = version(&current(&target));
                    assert!(matches!(found.as_deref(), Some("old" | "new")), "{first}, {second}");
                }
            }
        }
    }

    #[test]
    fn directories_in_use_and_other_names_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let staged = StagedDir::create(&disk, &dir.path().join("data")).unwrap();
        let dead = dir.path().join("data.tmp-0123456789abcdef");
        let other = dir.path().join("other.tmp-0123456789abcdef");
        for path in [&dead, &other] {
            fs::create_dir(path).unwrap();
        }
        clear_leftovers(&disk, dir.path(), |name| name == "data");
        assert!(staged.path().exists() && other.exists() && !dead.exists());
        drop(staged);
        assert_eq!(names(dir.path()), ["other.tmp-0123456789abcdef"]);
    }
}
