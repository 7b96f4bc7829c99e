//! Locks between processes, provided by the kernel (`flock`): a lock ends with the process that holds it.
//!
//! There are two kinds. A *lock file* exists only to be locked; its contents tell others who holds it. A *directory* is
//! locked itself, so that the lock follows it through renames.
//!
//! Testing whether a lock is held takes a shared lock for a moment. A process that wants the lock distinguishes a test
//! from a holder and waits for the test to finish, so testing never keeps anyone out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

/// How many tests of other processes to wait for, and how long each.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(1);

/// A lock, held until dropped.
#[derive(Debug)]
pub struct FileLock {
    // The kernel's lock is held as long as this is open.
    file: File,
}

impl FileLock {
    /// Locks the file at `path`, creating it if necessary. Returns `None` if another process holds the lock.
    ///
    /// A process holds the lock while it deletes the lock file, so a lock only counts if `path` still refers to the
    /// locked file.
    ///
    /// # Errors
    /// If the file cannot be opened or locked, or is not a regular file. A symbolic link is rejected, because someone
    /// else may have put it there to have another file overwritten.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open_lock_file(path)?;
            if !try_lock(&file)? {
                return Ok(None);
            }
            if has_name(&file, path)? {
                return Ok(Some(Self { file }));
            }
        }
    }

    /// Like [`Self::try_exclusive`], but waits until the lock is free.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        loop {
            let file = open_lock_file(path)?;
            file.lock()?;
            if has_name(&file, path)? {
                return Ok(Self { file });
            }
        }
    }

    /// Locks a directory exclusively. Returns `None` if another process holds a lock on it.
    ///
    /// A file system without locks offers no other protection either, so failing to lock is not an error.
    ///
    /// # Errors
    /// If the directory cannot be opened.
    pub fn try_directory(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        Ok(try_lock(&file).unwrap_or(true).then_some(Self { file }))
    }

    /// Takes a shared lock on a directory, waiting until no one holds it exclusively. Failing to lock is not an error,
    /// as in [`Self::try_directory`].
    ///
    /// # Errors
    /// If the directory cannot be opened.
    pub fn share_directory(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let _ = file.lock_shared();
        Ok(Self { file })
    }

    /// Whether the lock file or directory at `path` is locked exclusively. A path that cannot be opened is not locked.
    pub fn is_held(path: &Path) -> bool {
        let held = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        plain().read(true).open(path).is_ok_and(held)
    }

    /// Replaces the contents of the lock file, which identify the holder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(content)
    }
}

/// Open options that follow no symbolic link, and do not block on a pipe.
fn plain() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    options
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    // Not truncated: until the lock is ours, the contents belong to its holder.
    let opened = plain().write(true).create(true).truncate(false).open(path);
    let is_odd = || fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Err(error) if !is_odd() => Err(error),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the lock file is a link or device")),
    }
}

/// Whether we now hold the exclusive lock on `file`.
fn try_lock(file: &File) -> io::Result<bool> {
    for _ in 0..LOOKS {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        // A shared lock is possible next to a test, but not next to a holder.
        match file.try_lock_shared() {
            Ok(()) => file.unlock()?,
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => return Ok(false),
        }
        thread::sleep(LOOK);
    }
    Ok(false)
}

/// Whether `path` still names `file`.
fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_process_holds_it_and_waiting_ends_when_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        assert!(!FileLock::is_held(&path));
        let first = FileLock::try_exclusive(&path).unwrap().unwrap();
        assert!(FileLock::is_held(&path) && FileLock::try_exclusive(&path).unwrap().is_none());
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let path = &path;
            scope.spawn(move || sender.send(FileLock::exclusive(path)));
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "it is held");
            drop(first);
            receiver.recv().unwrap().unwrap();
        });
        assert!(!FileLock::is_held(&path));
    }

    #[test]
    fn the_holder_replaces_the_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        fs::write(&path, "an earlier holder, at length").unwrap();
        let mut lock = FileLock::try_exclusive(&path).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "an earlier holder, at length");
        lock.write(b"us").unwrap();
        lock.write(b"we").unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "we");
    }

    #[test]
    fn a_deleted_lock_file_is_not_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let first = FileLock::try_exclusive(&path).unwrap().unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(!has_name(&first.file, &path).unwrap());
        let second = FileLock::try_exclusive(&path).unwrap().unwrap();
        assert!(has_name(&second.file, &path).unwrap() && !has_name(&first.file, &path).unwrap());
    }

    #[test]
    fn a_waiter_on_a_deleted_file_locks_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let first = FileLock::exclusive(&path).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| FileLock::exclusive(&path).unwrap());
            thread::sleep(Duration::from_millis(50));
            fs::remove_file(&path).unwrap();
            drop(first);
            let second = waiting.join().unwrap();
            assert!(has_name(&second.file, &path).unwrap());
            assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        });
    }

    #[test]
    fn neither_links_nor_pipes_are_locked() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("a.lock"));
        fs::write(&victim, "theirs").unwrap();
        for target in [victim.clone(), dir.path().join("missing"), path.clone()] {
            symlink(&target, &path).unwrap();
            for refused in
                [FileLock::try_exclusive(&path).unwrap_err(), FileLock::exclusive(&path).unwrap_err()]
            {
                assert!(refused.to_string().contains("a link or device"), "{refused}");
            }
            assert!(!FileLock::is_held(&path));
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
        assert!(!dir.path().join("missing").exists());
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(FileLock::try_exclusive(&path).is_err(), "a pipe without a reader");
        let missing = FileLock::try_exclusive(Path::new("/nowhere/a.lock")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn testing_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        drop(FileLock::exclusive(&path).unwrap());
        let (done, looks) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    FileLock::is_held(&path);
                    looks.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                }
            });
            while looks.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            let taken = (0..200).filter(|_| FileLock::try_exclusive(&path).unwrap().is_some()).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(taken, 200);
        });
    }

    #[test]
    fn a_directory_is_held_by_one_or_shared_by_many() {
        let dir = tempfile::tempdir().unwrap();
        let (path, renamed) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&path).unwrap();
        let pins = [FileLock::share_directory(&path).unwrap(), FileLock::share_directory(&path).unwrap()];
        assert!(FileLock::try_directory(&path).unwrap().is_none());
        assert!(!FileLock::is_held(&path), "shared");
        drop(pins);
        let held = FileLock::try_directory(&path).unwrap().unwrap();
        fs::rename(&path, &renamed).unwrap();
        assert!(FileLock::is_held(&renamed), "the lock goes with the directory");
        drop(held);
        assert!(!FileLock::is_held(&renamed));
    }
}
