//! SIGINT and SIGTERM: the first requests a stop, the second ends the process immediately.
//!
//! Long-running work calls [`check`] between its steps (a training step, a batch of documents, a download chunk) and
//! propagates [`Stopped`]; `main` turns it into exit status 75 once everything is saved. The second signal ends the
//! process inside the signal handler, so it works however busy or blocked the program is.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use oss_config::error::Stopped;

/// Set by the first signal. It is separate from [`ASKED`], so that a stop requested by the program itself does not turn
/// the first Ctrl-C into the second.
static SIGNALLED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Set by [`request`].
static ASKED: AtomicBool = AtomicBool::new(false);

/// Installs the handlers for SIGINT and SIGTERM. Calling it again has no effect.
///
/// # Errors
/// If the system refuses a signal handler or a thread.
pub fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    for (signal, status) in [(SIGINT, 130), (SIGTERM, 143)] {
        // Actions run in this order: the exit must see the flag as it was before this signal.
        flag::register_conditional_shutdown(signal, status, Arc::clone(&SIGNALLED))?;
        flag::register(signal, Arc::clone(&SIGNALLED))?;
    }
    announce_first_signal()?;
    *installed = true;
    Ok(())
}

/// Printing is not allowed inside a signal handler, so a thread waits for the first signal and prints.
fn announce_first_signal() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_some() {
            announce();
        }
    })?;
    Ok(())
}

/// Acknowledges the stop once. The thread above does so immediately, however long a step takes; [`requested`] does it
/// too, so that work that ends quickly does not end silently.
fn announce() {
    static ANNOUNCED: Once = Once::new();
    ANNOUNCED.call_once(|| {
        let mut stderr = io::stderr().lock();
        // On a terminal, the line replaces a progress bar, which is drawn again below it.
        let clear = if stderr.is_terminal() { "\r\x1b[K" } else { "" };
        // A closed stderr must not undo the requested stop.
        let _ = writeln!(
            stderr,
            "{clear}finishing the current step, then saving; press Ctrl-C again to stop immediately"
        );
    });
}

/// Requests a stop as a first signal would, for example when a time limit is reached.
pub fn request() {
    ASKED.store(true, Ordering::SeqCst);
}

/// Whether a stop was requested.
pub fn requested() -> bool {
    if SIGNALLED.load(Ordering::SeqCst) {
        announce();
        return true;
    }
    ASKED.load(Ordering::SeqCst)
}

/// Returns early from work that a stop may interrupt.
///
/// # Errors
/// [`Stopped`] once a stop was requested.
pub fn check() -> Result<(), Stopped> {
    if requested() { Err(Stopped) } else { Ok(()) }
}

/// Ends the process immediately. Otherwise libtorch would tear down its operator registry, which takes a third of the
/// CPU time of a run with nothing to do. Only stdout is flushed; files must have been written before.
pub fn leave(status: i32) -> ! {
    // A closed stdout has no reader.
    let _ = io::stdout().flush();
    signal_hook::low_level::exit(status)
}
