//! Progress of long operations, and how to stop them.

use anyhow::Result;

/// Callbacks of a long operation.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called between pieces of work; an error ends the operation and is returned unchanged.
    pub keep_going: &'a (dyn Fn() -> Result<()> + Sync),
    /// Called as the work progresses.
    pub progress: &'a (dyn Fn(Activity<'_>) + Sync),
}

impl Watch<'static> {
    /// Reports nothing and never stops.
    pub fn quiet() -> Self {
        Self { keep_going: &|| Ok(()), progress: &|_| () }
    }
}

/// Progress on one file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity<'a> {
    /// What is being done.
    pub kind: ActivityKind,
    /// The file.
    pub file: &'a str,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in total.
    pub total_bytes: u64,
}

/// What is being done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivityKind {
    /// Computing a digest.
    Hashing,
    /// Downloading.
    Downloading,
}
