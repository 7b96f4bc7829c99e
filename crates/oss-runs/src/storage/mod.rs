//! Atomic directories, locks between processes, and pointers to files that were not downloaded.

mod disk;
mod faults;
mod file_lock;
mod lfs;
mod name;
mod swap;

pub use disk::Disk;
pub use faults::{Fault, Faults};
pub use file_lock::FileLock;
pub use lfs::refuse_lfs_pointer;
pub use name::is_plain_name;
pub use swap::{Sibling, StagedDir, clear_leftovers, current};
