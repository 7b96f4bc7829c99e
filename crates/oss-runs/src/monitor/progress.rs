//! Progress bars for long operations.
//!
//! Bars are drawn on stderr if it is a terminal. Otherwise, an operation that takes more than a moment logs two lines:
//! one while it is in progress, and one with its totals at the end. In both cases, the rank's log has the closing line.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{
    BinaryBytes, FormattedDuration, HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget,
    ProgressState, ProgressStyle,
};

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
    label: String,
    unit: Unit,
    total: Option<u64>,
    first: u64,
    bar: ProgressBar,
    drawn: bool,
    announced: AtomicBool,
    started: Instant,
}

impl Progress {
    /// Starts at zero, toward `total` if it is known.
    pub fn new(label: &str, total: Option<u64>, unit: Unit) -> Self {
        Self::resumed(label, total, unit, 0)
    }

    /// Starts at `first`, which was done earlier; the rate is measured from there.
    pub fn resumed(label: &str, total: Option<u64>, unit: Unit, first: u64) -> Self {
        let drawn = io::stderr().is_terminal() && !HIDDEN.load(Ordering::Relaxed);
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_position(first);
        let bar = if drawn { BARS.add(bar) } else { bar };
        bar.set_style(style(unit, total.is_some()));
        bar.set_prefix(label.to_owned());
        bar.reset_eta();
        if drawn {
            // Shows that the program is alive during steps that take many seconds.
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self {
            label: label.to_owned(),
            unit,
            total,
            first,
            bar,
            drawn,
            announced: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Adds `count`.
    pub fn advance(&self, count: u64) {
        self.bar.inc(count);
        self.announce();
    }

    /// Sets the position, in the same unit as the total.
    pub fn set_position(&self, position: u64) {
        self.bar.set_position(position);
        self.announce();
    }

    /// Shows `text` after the bar and at the end of the closing line: a loss, a file name.
    pub fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// If the bar is not visible, logs once that a longer operation is in progress.
    fn announce(&self) {
        if !self.drawn
            && self.started.elapsed() >= MIN_REPORTED
            && !self.announced.swap(true, Ordering::Relaxed)
        {
            match self.total {
                Some(total) => tracing::info!(
                    "{}: {} to go",
                    self.label,
                    Amount(total - self.first.min(total), self.unit)
                ),
                None => tracing::info!("{}: in progress", self.label),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Clearing the bar moves it to its end.
        let position = self.bar.position();
        self.bar.finish_and_clear();
        if self.drawn {
            BARS.remove(&self.bar);
        }
        let took = self.started.elapsed();
        let closing = Closing {
            label: &self.label,
            position,
            first: self.first,
            total: self.total,
            unit: self.unit,
            took,
            message: &self.bar.message(),
        };
        if took >= MIN_REPORTED {
            tracing::info!("{closing}");
        } else {
            tracing::debug!("{closing}");
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
        match secs {
            ..60.0 => write!(f, " in {secs:.1} s")?,
            _ => write!(f, " in {}", FormattedDuration(self.took))?,
        }
        let rate = self.position.saturating_sub(self.first) as f64 / secs.max(1e-9);
        write!(f, " ({})", Rate(rate, self.unit))?;
        if !self.message.is_empty() {
            write!(f, ", {}", self.message)?;
        }
        Ok(())
    }
}

/// A count without the name of its unit, except for bytes.
struct Count(u64, Unit);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Unit::Bytes => write!(f, "{}", BinaryBytes(self.0)),
            _ => write!(f, "{}", HumanCount(self.0)),
        }
    }
}

/// A count with the name of its unit.
struct Amount(u64, Unit);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Count(self.0, self.1), name(self.1))
    }
}

/// A count per second, to three digits.
struct Rate(f64, Unit);

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

fn style(unit: Unit, total_known: bool) -> ProgressStyle {
    let template = if total_known {
        "{prefix} {bar:24} {count}/{total}, {rate}, {eta} left  {wide_msg}"
    } else {
        "{prefix} {spinner} {count}, {rate}, {elapsed}  {wide_msg}"
    };
    let key = move |write: fn(&ProgressState, Unit) -> String| {
        move |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A terminal that accepts no output is no reason to stop.
            let _ = out.write_str(&write(state, unit));
        }
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
        .with_key("count", key(|state, unit| Count(state.pos(), unit).to_string()))
        .with_key("total", key(|state, unit| Amount(state.len().unwrap_or_default(), unit).to_string()))
        .with_key("rate", key(|state, unit| Rate(state.per_sec(), unit).to_string()))
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
    fn threads_share_one_count() {
        let progress = Progress::new("work", Some(400), Unit::Items);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..100).for_each(|_| progress.advance(1)));
            }
        });
        assert_eq!(progress.bar.position(), 400);
        progress.set_position(7);
        progress.message("file");
        assert_eq!(progress.bar.position(), 7);
    }

    #[test]
    fn both_styles_are_well_formed() {
        for (unit, total) in [(Unit::Bytes, None), (Unit::Steps, Some(10))] {
            let bar = ProgressBar::hidden();
            bar.set_style(style(unit, total.is_some()));
            bar.tick();
        }
    }
}
