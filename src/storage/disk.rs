//! The file-system calls of a commit, in one place so that a test can make any of them fail.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

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

    /// Gives each of two existing paths the other's name, in one call.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.gate()?;
        #[cfg(test)]
        self.faults.exchange()?;
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    pub(crate) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate()?;
        fs::remove_dir_all(path)
    }
}
