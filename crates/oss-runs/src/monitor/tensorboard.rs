//! TensorBoard event files: a view of the metrics, never a reason for a run to fail.
//!
//! `tensorboard-rs` frames the records. Its own file writer panics on I/O errors, so the file is opened and flushed
//! here; the first error is reported once and ends the writing.

mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::Message;
use tensorboard_proto::event::Event;
use tensorboard_rs::record_writer::RecordWriter;

/// A hyperparameter in TensorBoard's HParams tab.
#[derive(Clone, Debug, PartialEq)]
pub enum HParam {
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
    /// A boolean.
    Flag(bool),
}

/// A run in TensorBoard's HParams tab.
#[derive(Clone, Debug, PartialEq)]
pub struct HParams {
    /// Name of its row. Runs of the same name would share one.
    pub row: String,
    /// Its hyperparameters.
    pub values: BTreeMap<String, HParam>,
    /// Those that have a column.
    pub columns: BTreeSet<String>,
    /// The columns that are shown first; the tab selects five.
    pub first: BTreeSet<String>,
    /// The metrics to compare it by: tag and heading. The tab selects five, too.
    pub metrics: Vec<(String, &'static str)>,
}

/// The event file of one attempt of a run.
pub struct TensorBoard {
    dir: PathBuf,
    /// `None` once writing has failed.
    writer: Option<RecordWriter<BufWriter<File>>>,
}

impl TensorBoard {
    /// Creates a new event file in `dir`. With `purge_from`, TensorBoard discards what earlier files contain about that
    /// step and later ones.
    ///
    /// If the file cannot be created, a warning is logged and all further writes are dropped.
    pub fn open(dir: &Path, purge_from: Option<u64>) -> Self {
        let mut board = Self { dir: dir.to_owned(), writer: None };
        match create_event_file(dir) {
            Ok((file, first_here)) => {
                board.writer = Some(RecordWriter::new(BufWriter::new(file)));
                board.write(events::file_version());
                if let Some(step) = purge_from.filter(|_| !first_here) {
                    board.write(events::restart(step));
                }
                board.flush();
            }
            Err(error) => board.disable(&error),
        }
        board
    }

    /// One point of the curve `tag`. TensorBoard stores it in 32 bits.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) {
        self.write(events::scalar(tag, step, value));
    }

    /// A text, rendered as Markdown.
    pub fn text(&mut self, tag: &str, step: u64, text: &str) {
        self.write(events::text(tag, step, text));
    }

    /// This run in the HParams tab. If it is written again after a resume, TensorBoard keeps the first.
    pub fn hparams(&mut self, run: &HParams) {
        self.write(events::hparams_experiment(run));
        self.write(events::hparams_start(run));
        self.flush();
    }

    /// Marks the run as complete; the HParams tab shows it as successful.
    pub fn finish(&mut self) {
        self.write(events::hparams_end());
        self.flush();
    }

    /// Flushes the file, so that a running TensorBoard sees everything so far.
    pub fn flush(&mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush()
        {
            self.disable(&error);
        }
    }

    fn write(&mut self, mut event: Event) {
        let Some(writer) = &mut self.writer else { return };
        event.set_wall_time(now_secs());
        let written =
            event.write_to_bytes().map_err(io::Error::from).and_then(|record| writer.write(&record));
        if let Err(error) = written {
            self.disable(&error);
        }
    }

    fn disable(&mut self, error: &io::Error) {
        self.writer = None;
        tracing::warn!(
            "TensorBoard logging stopped ({}: {error}); the run continues, and metrics.jsonl has all metrics",
            self.dir.display()
        );
    }
}

impl std::fmt::Debug for TensorBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorBoard").field("dir", &self.dir).field("writes", &self.writer.is_some()).finish()
    }
}

impl Drop for TensorBoard {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Creates the next event file in `dir`, and returns whether it is the first.
///
/// TensorBoard reads the files of a directory in order of their names, which begin with a time in seconds. A purge must
/// be read after what it purges, so the new name's time is later than any existing one, whatever the clock says.
fn create_event_file(dir: &Path) -> io::Result<(File, bool)> {
    const PREFIX: &str = "events.out.tfevents.";
    fs::create_dir_all(dir)?;
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stamp =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok());
        newest = newest.max(stamp);
    }
    let stamp = newest.map_or(0, |newest| newest + 1).max(now_secs() as u64);
    let host = sysinfo::System::host_name().unwrap_or_else(|| "localhost".into());
    let path = dir.join(format!("{PREFIX}{stamp:010}.{host}.{}.0", std::process::id()));
    Ok((OpenOptions::new().write(true).create_new(true).open(path)?, newest.is_none()))
}

fn now_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
