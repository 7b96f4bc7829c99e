//! Progress bars for file operations, and cancellation.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use oss_data::sources::{Activity, ActivityKind, Watch};
use oss_runs::interrupt;
use oss_runs::monitor::{Progress, Unit};

/// Shows a bar for each file that is downloaded or hashed, and stops on request.
pub fn watch() -> Watch<'static> {
    Watch { keep_going: &keep_going, progress: &show }
}

/// Checks whether to continue.
///
/// # Errors
/// A stop was requested.
pub fn keep_going() -> Result<()> {
    Ok(interrupt::check()?)
}

/// The current file and its bar, which the next file's bar replaces.
static SHOWN: Mutex<Option<(String, Progress)>> = Mutex::new(None);

fn show(activity: Activity<'_>) {
    let verb = match activity.kind {
        ActivityKind::Hashing => "reading",
        ActivityKind::Downloading => "downloading",
    };
    let label = format!("{verb} {}", activity.file);
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if shown.as_ref().is_none_or(|(other, _)| *other != label) {
        *shown = Some((label.clone(), Progress::new(&label, Some(activity.total_bytes), Unit::Bytes)));
    }
    if let Some((_, bar)) = shown.as_ref() {
        bar.set_position(activity.done_bytes);
    }
    if activity.done_bytes >= activity.total_bytes {
        *shown = None;
    }
}
