//! Atomic directories, and locks between processes.

mod disk;
mod faults;
mod file_lock;
mod swap;

pub use disk::Disk;
pub use faults::{Fault, Faults};
pub use file_lock::FileLock;
pub use swap::{Sibling, StagedDir, clear_leftovers, current};

/// Whether a name read from a file stays inside its directory.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
