//! Status lines for a program whose progress bars are not visible: one per interval in which nothing else was printed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::progress::Snapshot;

/// Seconds between lines; `log.every_seconds` sets another number.
static INTERVAL_SECS: AtomicU64 = AtomicU64::new(30);

/// How often the clock is checked.
const RESOLUTION: Duration = Duration::from_secs(1);

/// When the last line was printed.
static LAST_LINE: LazyLock<Mutex<Instant>> = LazyLock::new(|| Mutex::new(Instant::now()));

/// Operations in progress, the innermost last.
static ACTIVE: Mutex<Vec<(u64, Snapshot)>> = Mutex::new(Vec::new());

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Sets the number of seconds between status lines.
pub fn set_status_interval(seconds: u64) {
    INTERVAL_SECS.store(seconds, Ordering::Relaxed);
}

/// Notes that a line has been printed.
pub(super) fn line_printed() {
    *locked(&LAST_LINE) = Instant::now();
}

/// An operation that status lines describe until this is dropped.
#[derive(Debug)]
pub(super) struct Registration(u64);

/// Describes `snapshot` in status lines, in place of the operations around it.
pub(super) fn register(snapshot: Snapshot) -> Registration {
    static THREAD: Once = Once::new();
    THREAD.call_once(|| {
        line_printed();
        // Without the thread, only status lines are missing.
        let _ = thread::Builder::new().name("heartbeat".to_owned()).spawn(beat);
    });
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    locked(&ACTIVE).push((id, snapshot));
    Registration(id)
}

impl Drop for Registration {
    fn drop(&mut self) {
        locked(&ACTIVE).retain(|(id, _)| *id != self.0);
    }
}

fn beat() {
    loop {
        thread::sleep(RESOLUTION);
        if locked(&LAST_LINE).elapsed() < Duration::from_secs(INTERVAL_SECS.load(Ordering::Relaxed)) {
            continue;
        }
        // Formatted first: printing must not hold the lock, since an operation may end meanwhile.
        let line = locked(&ACTIVE).last().map(|(_, snapshot)| snapshot.to_string());
        // Also if the line is only logged, because the console hides it.
        line_printed();
        if let Some(line) = line {
            tracing::info!("{line}");
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
