//! Directories that appear whole or not at all, and the safetensors files in them.

mod disk;
#[cfg(test)]
mod faults;
mod tensor_file;

pub(crate) use disk::{Disk, Sibling, hold, in_use, swap_directory};
#[cfg(test)]
pub(crate) use faults::{Fault, Faults};
pub use tensor_file::{FileRecord, TensorFileError};
pub(crate) use tensor_file::{Planned, TensorFile, TensorFileWriter, dtype_of, header, io_error, kind_of};

/// Whether a name that was read from a file stays inside its directory.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
