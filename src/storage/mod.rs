//! Directories that appear whole or not at all, the safetensors files in them, and locks between processes.

mod disk;
#[cfg(test)]
mod faults;
mod file_lock;
mod swap;
mod tensor_file;

pub(crate) use disk::Disk;
#[cfg(test)]
pub(crate) use faults::{Fault, Faults};
pub(crate) use file_lock::FileLock;
pub(crate) use swap::{Sibling, StagedDir, clear_leftovers, current};
pub use tensor_file::{FileRecord, TensorFileError};
pub(crate) use tensor_file::{Planned, TensorFile, TensorFileWriter, dtype_of, header, io_error, kind_of};

/// Whether a name that was read from a file stays inside its directory.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
