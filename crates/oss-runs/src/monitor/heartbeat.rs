//! Status lines for a program whose progress bars are not visible: one per interval in which nothing else was printed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::progress::Snapshot;

/// The interval unless `log.every_seconds` sets another.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

/// How often the clock is checked.
const RESOLUTION: Duration = Duration::from_secs(1);

static INTERVAL_MS: AtomicU64 = AtomicU64::new(DEFAULT_INTERVAL.as_millis() as u64);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds from `START` to the last line.
static LAST_LINE_MS: AtomicU64 = AtomicU64::new(0);

/// Operations in progress, the innermost last.
static ACTIVE: Mutex<Vec<(u64, Snapshot)>> = Mutex::new(Vec::new());

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Sets the interval between status lines.
pub fn set_status_interval(interval: Duration) {
    INTERVAL_MS.store(milliseconds(interval), Ordering::Relaxed);
}

/// Notes that a line has been printed.
pub(super) fn line_printed() {
    LAST_LINE_MS.store(milliseconds(START.elapsed()), Ordering::Relaxed);
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
    active().push((id, snapshot));
    Registration(id)
}

impl Drop for Registration {
    fn drop(&mut self) {
        active().retain(|(id, _)| *id != self.0);
    }
}

fn beat() {
    loop {
        thread::sleep(RESOLUTION.min(Duration::from_millis(INTERVAL_MS.load(Ordering::Relaxed))));
        let silent = milliseconds(START.elapsed())
            - LAST_LINE_MS.load(Ordering::Relaxed).min(milliseconds(START.elapsed()));
        if silent >= INTERVAL_MS.load(Ordering::Relaxed) {
            // Formatted first: printing must not hold the lock, since an operation may end meanwhile.
            let line = active().last().map(|(_, snapshot)| snapshot.to_string());
            line_printed();
            if let Some(line) = line {
                tracing::info!("{line}");
            }
        }
    }
}

fn active() -> std::sync::MutexGuard<'static, Vec<(u64, Snapshot)>> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().min(u128::from(u64::MAX)) as u64
}
