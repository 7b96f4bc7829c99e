//! Logging: plain messages on stderr, and everything with timestamps in the rank's log. Secrets are removed from both.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::heartbeat::line_printed;
use super::progress::{above_bars, hide_bars};
use super::style::colored;
use crate::run_dir::redact;

/// Maximum size in bytes of the messages kept for a log file that is not open yet.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// The log file. Messages that arrive before the run directory is known are buffered.
enum LogFile {
    Waiting(Vec<u8>),
    Open(File),
}

static LOG_FILE: Mutex<LogFile> = Mutex::new(LogFile::Waiting(Vec::new()));

/// The least important messages shown on stderr. The log file has [`Debug`](Self::Debug) and above in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only errors.
    Errors,
    /// Also warnings.
    Warnings,
    /// Also progress and results.
    Info,
    /// Also what the program does in between.
    Debug,
    /// Everything.
    Trace,
}

impl Verbosity {
    fn level(self) -> LevelFilter {
        match self {
            Self::Errors => LevelFilter::ERROR,
            Self::Warnings => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// Sends messages to stderr and to `log_file`, if it is already known. Below [`Verbosity::Info`], there are no progress
/// bars either. A second call only opens its log file.
///
/// # Errors
/// If the log file cannot be opened.
pub fn init_logging(verbosity: Verbosity, log_file: Option<&Path>) -> io::Result<()> {
    let shown = verbosity.level();
    // A closed stderr or a full disk only loses messages: the layers would report the error on stderr, and panic.
    let console = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .event_format(PlainLines)
        .with_ansi(false)
        .with_writer(|| Redacting(Console))
        .with_filter(filter(shown, shown.min(LevelFilter::WARN)));
    let file = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_ansi(false)
        .with_writer(|| Redacting(ToLogFile))
        .with_filter(filter(LevelFilter::DEBUG, LevelFilter::WARN));
    // A second call finds the first one's subscriber, which is equivalent.
    if Registry::default().with(console).with(file).try_init().is_ok() && verbosity < Verbosity::Info {
        hide_bars();
    }
    log_file.map_or(Ok(()), log_to)
}

/// Opens the log of this rank, now that the run is known, and writes the buffered messages to it.
///
/// # Errors
/// If the file cannot be opened or written.
pub fn log_to(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let mut log = LOG_FILE.lock().unwrap_or_else(PoisonError::into_inner);
    if let LogFile::Waiting(waiting) = &*log {
        file.write_all(waiting)?;
    }
    *log = LogFile::Open(file);
    Ok(())
}

/// Messages of this program at level `own` and above, and of its libraries at level `other` and above.
fn filter(own: LevelFilter, other: LevelFilter) -> Targets {
    Targets::new().with_default(other).with_target("oss_", own)
}

/// The format for stderr: `warning: the message`; informational messages have no prefix.
struct PlainLines;

impl<S, N> FormatEvent<S, N> for PlainLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        out.write_str(match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG => "debug: ",
            Level::TRACE => "trace: ",
        })?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// Redacts secrets. Each message arrives in one piece, so a secret cannot be split across two.
struct Redacting<W>(W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0.write_all(redact(&String::from_utf8_lossy(message)).as_bytes())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Standard error, above the progress bars.
struct Console;

impl Write for Console {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(message);
        above_bars(|| io::stderr().write_all(colored(&text).as_bytes()))?;
        line_printed();
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log file, or its buffer.
struct ToLogFile;

impl Write for ToLogFile {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        match &mut *LOG_FILE.lock().unwrap_or_else(PoisonError::into_inner) {
            LogFile::Open(file) => file.write_all(message)?,
            LogFile::Waiting(waiting) if waiting.len() < MAX_WAITING_BYTES => {
                waiting.extend_from_slice(message)
            }
            LogFile::Waiting(_) => {}
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
