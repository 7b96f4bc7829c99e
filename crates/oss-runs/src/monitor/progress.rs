//! Progress bars for long operations.
//!
//! Bars are drawn on stderr if it is a terminal. Otherwise, an operation that takes more than a moment logs a line when
//! it is first noticed, status lines (see `heartbeat`), and a line with its totals at the end. In both cases, the rank's
//! log has the closing line.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{BinaryBytes, FormattedDuration, HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget};

use super::bar::{self, Message};
use super::heartbeat::{self, Registration};

/// Shorter operations log nothing.
const MIN_REPORTED: Duration = Duration::from_secs(1);

/// The bars on the screen, stacked vertically.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Set if only warnings and errors are shown.
static HIDDEN: AtomicBool = AtomicBool::new(false);

/// Disables progress bars from now on.
pub(super) fn hide_bars() {
    HIDDEN.store(true, Ordering::Relaxed);
}

/// Runs `print`, which writes whole lines to the terminal, with the bars out of the way.
pub(super) fn above_bars<T>(print: impl FnOnce() -> T) -> T {
    BARS.suspend(print)
}

/// The unit of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes read, written or downloaded.
    Bytes,
    /// Tokens.
    Tokens,
    /// Optimizer steps.
    Steps,
    /// Documents, files or samples, as the label says.
    Items,
}

/// A long operation in progress. Threads may share it; dropping it ends it.
#[derive(Debug)]
pub struct Progress {
    snapshot: Snapshot,
    drawn: bool,
    announced: AtomicBool,
    /// Ends its status lines, which a visible bar does not need.
    _registration: Option<Registration>,
}

impl Progress {
    /// Starts at zero, toward `total` if it is known.
    pub fn new(label: &str, total: Option<u64>, unit: Unit) -> Self {
        Self::resumed(label, total, unit, 0)
    }

    /// Starts at `first`, which was done earlier; the rate is measured from there.
    pub fn resumed(label: &str, total: Option<u64>, unit: Unit, first: u64) -> Self {
        let drawn = is_drawn();
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_position(first);
        let bar = if drawn { BARS.add(bar) } else { bar };
        let message = Message::default();
        bar.set_style(bar::style(label, unit, total, message.clone()));
        bar.reset_eta();
        if drawn {
            // Shows that the program is alive during steps that take many seconds.
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let (label, started) = (label.to_owned(), Instant::now());
        let snapshot = Snapshot { label, unit, total, first, bar, message, started };
        let registration = (!drawn).then(|| heartbeat::register(snapshot.clone()));
        Self { snapshot, drawn, announced: AtomicBool::new(false), _registration: registration }
    }

    /// Adds `count`.
    pub fn advance(&self, count: u64) {
        self.snapshot.bar.inc(count);
        self.announce();
    }

    /// Sets the position, in the same unit as the total.
    pub fn set_position(&self, position: u64) {
        self.snapshot.bar.set_position(position);
        self.announce();
    }

    /// Shows `text` after the bar and at the end of the closing line: a loss, a file name. The bar leaves out its last
    /// parts, separated by commas, in a narrow terminal.
    pub fn message(&self, text: impl Into<String>) {
        self.snapshot.message.set(text.into());
        self.snapshot.bar.tick();
    }

    /// Its state in one line: `train: 480 of 500 steps, 40.0/s, 0.5 s left, loss 2.31`.
    pub fn status(&self) -> String {
        self.snapshot.to_string()
    }

    /// If the bar is not visible, logs once that a longer operation is in progress.
    fn announce(&self) {
        let Snapshot { label, unit, total, first, started, .. } = &self.snapshot;
        if !self.drawn && started.elapsed() >= MIN_REPORTED && !self.announced.swap(true, Ordering::Relaxed) {
            match total {
                Some(total) => tracing::info!("{label}: {} to go", Amount(total - first.min(total), *unit)),
                None => tracing::info!("{label}: in progress"),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let Snapshot { label, unit, total, first, bar, message, started } = &self.snapshot;
        // Clearing the bar moves it to its end.
        let position = bar.position();
        bar.finish_and_clear();
        if self.drawn {
            BARS.remove(bar);
        }
        let took = started.elapsed();
        let closing = Closing {
            label,
            position,
            first: *first,
            total: *total,
            unit: *unit,
            took,
            message: &message.get(),
        };
        if took >= MIN_REPORTED {
            tracing::info!("{closing}");
        } else {
            tracing::debug!("{closing}");
        }
    }
}

/// Work without a progress bar, such as writing a file, that status lines mention until this is dropped.
#[derive(Debug)]
pub struct InProgress {
    _registration: Option<Registration>,
}

impl InProgress {
    /// Starts the work named `label`.
    pub fn new(label: &str) -> Self {
        let snapshot = Snapshot {
            label: label.to_owned(),
            unit: Unit::Items,
            total: None,
            first: 0,
            bar: ProgressBar::hidden(),
            message: Message::default(),
            started: Instant::now(),
        };
        Self { _registration: (!is_drawn()).then(|| heartbeat::register(snapshot)) }
    }
}

/// Whether progress bars are visible. A dumb terminal cannot redraw a line.
fn is_drawn() -> bool {
    Term::stderr().is_term() && !console::is_dumb() && !HIDDEN.load(Ordering::Relaxed)
}

/// An operation in progress, for its status lines: `train: 480 of 500 steps, 40.0/s, 0.5 s left, loss 2.31`.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    label: String,
    unit: Unit,
    total: Option<u64>,
    first: u64,
    bar: ProgressBar,
    message: Message,
    started: Instant,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.bar.position();
        let elapsed = self.started.elapsed();
        if self.total.is_none() && position == self.first {
            return write!(f, "{}: in progress for {}", self.label, Seconds(elapsed));
        }
        let rate = position.saturating_sub(self.first) as f64 / elapsed.as_secs_f64().max(1e-9);
        write!(f, "{}: ", self.label)?;
        match self.total {
            Some(total) => write!(f, "{} of {}", Count(position, self.unit), Amount(total, self.unit))?,
            None => write!(f, "{}", Amount(position, self.unit))?,
        }
        match self.total {
            _ if rate == 0.0 => write!(f, ", after {}", Seconds(elapsed))?,
            Some(total) => {
                let left = total.saturating_sub(position) as f64 / rate;
                write!(
                    f,
                    ", {}, {} left",
                    Rate(rate, self.unit),
                    Seconds(Duration::from_secs_f64(left.min(1e9)))
                )?;
            }
            None => write!(f, ", {}", Rate(rate, self.unit))?,
        }
        let message = self.message.get();
        if !message.is_empty() {
            write!(f, ", {message}")?;
        }
        Ok(())
    }
}

/// `12.0 s`, and from a minute `00:01:30`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            secs @ ..60.0 => write!(f, "{secs:.1} s"),
            _ => write!(f, "{}", FormattedDuration(self.0)),
        }
    }
}

/// The closing line: `training: 480 of 500 steps in 12.0 s (40/s), loss 2.31`.
struct Closing<'a> {
    label: &'a str,
    position: u64,
    first: u64,
    total: Option<u64>,
    unit: Unit,
    took: Duration,
    message: &'a str,
}

impl fmt::Display for Closing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.label)?;
        match self.total {
            Some(total) if total != self.position => {
                write!(f, "{} of {}", Count(self.position, self.unit), Amount(total, self.unit))?;
            }
            _ => write!(f, "{}", Amount(self.position, self.unit))?,
        }
        let secs = self.took.as_secs_f64();
        write!(f, " in {}", Seconds(self.took))?;
        let rate = self.position.saturating_sub(self.first) as f64 / secs.max(1e-9);
        write!(f, " ({})", Rate(rate, self.unit))?;
        if !self.message.is_empty() {
            write!(f, ", {}", self.message)?;
        }
        Ok(())
    }
}

/// A count without the name of its unit, except for bytes.
pub(super) struct Count(pub u64, pub Unit);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Unit::Bytes => write!(f, "{}", BinaryBytes(self.0)),
            _ => write!(f, "{}", HumanCount(self.0)),
        }
    }
}

/// A count with the name of its unit.
pub(super) struct Amount(pub u64, pub Unit);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Count(self.0, self.1), name(self.1))
    }
}

/// A count per second, to three digits.
pub(super) struct Rate(pub f64, pub Unit);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Unit::Bytes => write!(f, "{}/s", BinaryBytes(self.0 as u64)),
            _ if self.0 < 10.0 => write!(f, "{:.2}/s", self.0),
            _ if self.0 < 100.0 => write!(f, "{:.1}/s", self.0),
            _ => write!(f, "{}/s", HumanCount(self.0 as u64)),
        }
    }
}

fn name(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes | Unit::Items => "",
        Unit::Tokens => " tokens",
        Unit::Steps => " steps",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closing(position: u64, total: Option<u64>, unit: Unit, secs: u64, message: &str) -> String {
        let took = Duration::from_secs(secs);
        Closing { label: "work", position, first: 0, total, unit, took, message }.to_string()
    }

    #[test]
    fn closing_lines_have_totals_and_rates() {
        assert_eq!(
            closing(500, Some(500), Unit::Steps, 10, "loss 2.31"),
            "work: 500 steps in 10.0 s (50.0/s), loss 2.31"
        );
        assert_eq!(closing(12, Some(500), Unit::Steps, 10, ""), "work: 12 of 500 steps in 10.0 s (1.20/s)");
        assert_eq!(
            closing(1_234_567, None, Unit::Tokens, 2, ""),
            "work: 1,234,567 tokens in 2.0 s (617,283/s)"
        );
        assert_eq!(
            closing(3 << 20, Some(3 << 20), Unit::Bytes, 1, ""),
            "work: 3.00 MiB in 1.0 s (3.00 MiB/s)"
        );
        assert_eq!(closing(90, None, Unit::Items, 90, ""), "work: 90 in 00:01:30 (1.00/s)");
    }

    #[test]
    fn a_resumed_bar_measures_only_its_own_work() {
        let closing = Closing {
            label: "work",
            position: 500,
            first: 400,
            total: Some(500),
            unit: Unit::Steps,
            took: Duration::from_secs(10),
            message: "",
        };
        assert_eq!(closing.to_string(), "work: 500 steps in 10.0 s (10.0/s)");
    }

    #[test]
    fn a_status_line_has_rate_and_time_left() {
        let started = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let bar = ProgressBar::hidden();
        bar.set_position(350);
        let message = Message::default();
        message.set("loss 2.31".into());
        let (label, unit, total) = ("train".into(), Unit::Steps, Some(500));
        let train = Snapshot { label, unit, total, first: 100, bar, message, started };
        let line = train.to_string();
        assert!(line.starts_with("train: 350 of 500 steps, 25.0/s, 6.0 s left, loss 2.31"), "{line}");
        let stuck = Snapshot { first: 350, ..train };
        assert_eq!(stuck.to_string(), "train: 350 of 500 steps, after 10.0 s, loss 2.31");
        let export = Snapshot { label: "export".into(), total: None, ..stuck };
        assert_eq!(export.to_string(), "export: in progress for 10.0 s");
    }

    #[test]
    fn threads_share_one_count() {
        let progress = Progress::new("work", Some(400), Unit::Items);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..100).for_each(|_| progress.advance(1)));
            }
        });
        assert_eq!(progress.snapshot.bar.position(), 400);
        progress.set_position(7);
        progress.message("file");
        assert_eq!(progress.snapshot.bar.position(), 7);
    }
}
