//! Atomic directories, and locks between processes.

mod disk;
mod faults;
mod file_lock;
mod name;
mod swap;

pub use disk::Disk;
pub use faults::{Fault, Faults};
pub use file_lock::FileLock;
pub use name::is_plain_name;
pub use swap::{Sibling, StagedDir, clear_leftovers, current};
