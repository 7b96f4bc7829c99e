//! Rows that cannot be read: an error, or skipped, counted and bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use oss_config::OnBadRow;
use oss_config::error::UserError;

/// Number of bad rows that are shown.
const SHOWN: usize = 5;

/// A source whose rows are mostly bad is given up after this many bad ones: the settings are wrong, not the rows.
const MOSTLY_BAD: u64 = 100;

/// Why a document could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// One row is bad; reading can continue after it.
    Row(UserError),
    /// The rest of the file cannot be read.
    File(anyhow::Error),
}

impl From<anyhow::Error> for ReadError {
    fn from(error: anyhow::Error) -> Self {
        Self::File(error)
    }
}

/// What to do about bad rows, and those that were found.
#[derive(Debug)]
pub struct BadRows {
    policy: OnBadRow,
    max_fraction: f64,
    /// Number of rows read, good or bad.
    rows: AtomicU64,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    count: u64,
    /// The first ones, with their places.
    first: Vec<String>,
    /// Hints of the first one.
    hints: Vec<String>,
}

impl Default for BadRows {
    fn default() -> Self {
        Self::new(OnBadRow::Error, 0.0)
    }
}

impl BadRows {
    /// No bad rows yet.
    pub fn new(policy: OnBadRow, max_fraction: f64) -> Self {
        Self { policy, max_fraction, rows: AtomicU64::new(0), found: Mutex::default() }
    }

    /// Number of bad rows that were skipped.
    pub fn count(&self) -> u64 {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The first bad rows, one per line.
    pub fn first(&self) -> String {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let more = (found.count > found.first.len() as u64).then_some("...");
        found.first.iter().map(String::as_str).chain(more).map(|line| format!("\n  {line}")).collect()
    }

    /// Counts a row that was read, good or bad.
    pub(crate) fn count_row(&self) {
        self.rows.fetch_add(1, Ordering::Relaxed);
    }

    /// Skips a bad row, if bad rows are skipped.
    ///
    /// # Errors
    /// `error`, if they are not; if most rows are bad.
    pub(crate) fn skip(&self, error: UserError) -> Result<()> {
        let rows = self.rows.load(Ordering::Relaxed);
        if self.policy == OnBadRow::Error {
            // If the very first row is bad, probably all are.
            let is_odd_one_out = rows > 1;
            let hint = "set dataset.on_bad_row = \"skip\" to skip such rows and count them";
            return Err(if is_odd_one_out { with_last_hint(&error, hint) } else { error }.into());
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.count == 0 {
            found.hints = error.hints().to_vec();
        }
        if found.first.len() < SHOWN {
            found.first.push(error.to_string());
        }
        found.count += 1;
        let is_hopeless = found.count >= MOSTLY_BAD && 2 * found.count > rows;
        drop(found);
        if is_hopeless { Err(self.too_many(rows)) } else { Ok(()) }
    }

    /// Checks the limit once all rows are read. A single bad row is within any limit.
    ///
    /// # Errors
    /// If too many rows are bad.
    pub(crate) fn check(&self) -> Result<()> {
        let (count, rows) = (self.count(), self.rows.load(Ordering::Relaxed));
        if count > 1 && count as f64 > self.max_fraction * rows as f64 {
            return Err(self.too_many(rows));
        }
        Ok(())
    }

    fn too_many(&self, rows: u64) -> anyhow::Error {
        let count = self.count();
        let error = UserError::failed(format!(
            "{count} of the first {rows} rows are bad, more than the fraction of {} that \
             dataset.max_bad_fraction allows:{}",
            self.max_fraction,
            self.first()
        ));
        let error = error.hint("or raise dataset.max_bad_fraction");
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.hints.iter().fold(error, |error, hint| error.hint(hint)).into()
    }
}

/// `error` with a hint that is less specific than its own: reports show the latest hint first.
fn with_last_hint(error: &UserError, hint: &str) -> UserError {
    let plain = UserError::failed(error.to_string()).hint(hint);
    error.hints().iter().fold(plain, |plain, hint| plain.hint(hint))
}
