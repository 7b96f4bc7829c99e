//! A directory that appears whole, or not at all.
//!
//! It is written under a name beside its own and takes that name when it is complete. Where there is an older version,
//! the two exchange names in one call. A file system that cannot do that takes two: the older version moves aside, then
//! the new one gets the name. A process that dies between these leaves no directory of that name, but both versions
//! beside it, whole; [`current`] finds the older one, and the next writer gives it its name back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Disk, FileLock};

/// Why a directory has a name beside its final one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sibling {
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
    pub fn of(self, target: &Path) -> PathBuf {
        use std::hash::{BuildHasher, RandomState};
        // Each RandomState is keyed by the system's randomness and a counter.
        let id = RandomState::new().hash_one(std::process::id());
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!("{}{id:016x}", self.infix()));
        target.with_file_name(name)
    }

    /// The final name and the kind of a sibling's name; none for other names.
    pub fn parse(name: &str) -> Option<(&str, Self)> {
        Self::ALL.into_iter().find_map(|kind| {
            let (target, id) = name.rsplit_once(kind.infix())?;
            (id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some((target, kind))
        })
    }
}

/// A directory being written beside its target; it goes when this is dropped uncommitted.
#[derive(Debug)]
pub struct StagedDir {
    disk: Disk,
    path: PathBuf,
    target: PathBuf,
    /// Keeps others from taking the directory for a dead process's. None where the file system has no locks.
    _held: Option<FileLock>,
}

impl StagedDir {
    /// Makes a directory that is to become `target`, whose parent exists.
    ///
    /// # Errors
    /// The disk is full or refuses.
    pub fn create(disk: &Disk, target: &Path) -> io::Result<Self> {
        let path = Sibling::Temporary.of(target);
        disk.create_dir(&path)?;
        let mut staged = Self { disk: disk.clone(), path, target: target.to_owned(), _held: None };
        staged._held = FileLock::try_directory(&staged.path)?;
        Ok(staged)
    }

    /// Where to write. Every file has to be synced before [`Self::commit`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the complete directory at its target, which it replaces, and makes that durable.
    ///
    /// # Errors
    /// The disk is full or refuses; the target is then what it was, or the new version.
    pub fn commit(self) -> io::Result<()> {
        swap(&self.disk, &self.path, &self.target)
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        // After a commit there is nothing of that name, unless the older version that it left there could not be removed.
        // What cannot be removed now is cleared away by the next writer.
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
        tracing::warn!("cannot remove {}: {error}; delete it by hand", older.display());
    }
    Ok(())
}

/// Gives `complete` the name of the older version at `target`, and says where that one is now.
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

/// Whether this file system, or this kernel, does not know the call. A file system may call its flags invalid.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// Where the newest whole version of the directory `target` is: there, or beside it, where a process died that was
/// about to replace it. `target` itself where there is none.
pub fn current(target: &Path) -> PathBuf {
    if target.exists() {
        return target.to_owned();
    }
    let replaced = || {
        let beside =
            siblings(parent(target), |name| Some(name) == target.file_name().and_then(|it| it.to_str()));
        beside.into_iter().find(|(_, kind, _)| *kind == Sibling::Replaced).map(|(path, ..)| path)
    };
    // Its replacement may have got the name while we looked.
    replaced().filter(|_| !target.exists()).unwrap_or_else(|| target.to_owned())
}

/// Clears away what dead processes left beside the directories in `parent` whose names `is_target` knows: unfinished
/// versions, replaced ones, half-deleted ones. A replaced one whose successor never got its name takes its name back.
///
/// To be called by whoever alone writes there. Failing must not keep him from that, and is only told.
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
            tracing::warn!("cannot clear away {}: {error}", path.display());
        }
    }
}

/// What lies in `parent` beside the directories whose names `is_target` knows, with the paths of those.
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

    /// Two files that say the same: a mix of versions is told from a whole one.
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

    /// Fails call after call of a replacement, on a file system that can `exchange` or not; the number of calls.
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
            // Whoever reads next.
            let found = version(&current(&target));
            match &outcome {
                Ok(()) => assert_eq!(found.as_deref(), Some("new"), "{case}"),
                Err(_) if replacing => assert!(matches!(found.as_deref(), Some("old" | "new")), "{case}"),
                Err(_) => assert!(matches!(found.as_deref(), None | Some("new")), "{case}"),
            }
            if fault != Fault::Killed {
                assert!(names(dir.path()).iter().all(|name| !name.contains(".tmp-")), "{case}");
            }
            // Whoever writes next, even if he is killed before he has written anything.
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
    fn a_fault_or_a_death_at_any_call_leaves_a_whole_version() {
        for fault in [Fault::Once, Fault::Full, Fault::Killed] {
            for exchange in [true, false] {
                assert!(survive(fault, exchange, false) > 9);
                let calls = survive(fault, exchange, true);
                assert!(calls > if exchange { 11 } else { 13 }, "{calls}");
            }
        }
    }

    /// A repair of what a dead process left, killed in turn.
    #[test]
    fn a_death_during_the_repair_loses_nothing() {
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
    fn what_is_being_written_and_what_is_not_asked_for_is_left_alone() {
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
