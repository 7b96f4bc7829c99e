//! The file system calls of a commit, in one place so that a test can make any of them fail.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::Faults;

/// The file system calls of a commit. Each goes through `gate` first, where a test can make it fail.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    faults: Option<Arc<Faults>>,
}

impl Disk {
    /// A disk that fails according to `faults`.
    pub fn failing(faults: Faults) -> Self {
        Self { faults: Some(Arc::new(faults)) }
    }

    /// Whether the call chosen to fail has been reached.
    pub fn has_failed(&self) -> bool {
        self.faults.as_ref().is_some_and(|faults| faults.reached())
    }

    fn gate(&self) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.gate())
    }

    /// Creates a directory.
    pub fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.gate()?;
        fs::create_dir(path)
    }

    /// Creates a file with the permissions that the umask allows.
    pub fn create_file(&self, path: &Path) -> io::Result<File> {
        self.gate()?;
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    /// Writes all of `bytes`.
    pub fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if let Err(fault) = self.gate() {
            // A disk fills up in the middle of a write, not between writes.
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(fault);
        }
        file.write_all(bytes)
    }

    /// Makes the contents of a file durable.
    pub fn sync_file(&self, file: &File) -> io::Result<()> {
        self.gate()?;
        file.sync_all()
    }

    /// Makes the entries of a directory durable.
    pub fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.gate()?;
        File::open(path)?.sync_all()
    }

    /// Renames a path, replacing an existing file.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate()?;
        fs::rename(from, to)
    }

    /// Exchanges the names of two existing paths in one call.
    pub fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.gate()?;
        self.faults.as_ref().map_or(Ok(()), |faults| faults.exchange())?;
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    /// Deletes a directory and everything in it.
    pub fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate()?;
        fs::remove_dir_all(path)
    }
}
