//! The ledger of a sweep: its trials in the order of their numbers, and every decision about them, one line each.
//!
//! The file is append-only and locked, so that all processes working on a sweep see the same history. The progress of a
//! trial is stored in its run, not here. A partial line left by a killed process is truncated before the next append.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use oss_config::Values;
use oss_config::error::{Hint, UserError};
use oss_runs::run_dir::SweepDir;
use oss_runs::storage::FileLock;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A new trial.
    Trial {
        /// Numbered from 1, never reused.
        number: u64,
        /// Run id.
        id: String,
        /// Its values.
        values: Values,
        /// Number of its cohort: the trials that it is compared with at a rung.
        cohort: u64,
    },
    /// It was promoted to the next rung.
    Promoted {
        /// Run id.
        id: String,
        /// Steps of the rung.
        steps: u64,
        /// The deciding metric.
        metric: Option<f64>,
    },
    /// It ended at its current rung.
    Ended {
        /// Run id.
        id: String,
        /// The deciding metric.
        metric: Option<f64>,
    },
    /// Its process failed.
    Failed {
        /// Run id.
        id: String,
        /// The error message.
        error: String,
    },
    /// It is retried after a failure.
    Retried {
        /// Run id.
        id: String,
    },
}

/// A trial in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Numbered from 1.
    pub number: u64,
    /// Its cohort: the trials that it is compared with at a rung.
    pub cohort: u64,
    /// Steps of the rung that it was promoted to; `None` on the first rung.
    pub promoted_to: Option<u64>,
    /// How often it was promoted.
    pub promotions: usize,
    /// It was ended by successive halving.
    pub ended: bool,
    /// Why it failed.
    pub failed: Option<String>,
}

/// The ledger, open for appending and locked until dropped.
pub struct Ledger {
    file: File,
    _lock: FileLock,
    entries: BTreeMap<String, Entry>,
}

impl Ledger {
    /// Waits for the lock and reads the ledger.
    ///
    /// # Errors
    /// The sweep's directory cannot be created or written, or a line is corrupted.
    pub fn open(dir: &SweepDir) -> Result<Self> {
        let place = || format!("cannot write to {}", dir.root().display());
        let hint = "make it writable, or choose another directory with --runs-dir";
        for folder in [dir.trials(), dir.logs(), dir.claims()] {
            fs::create_dir_all(folder).with_context(place).hint(hint)?;
        }
        let lock = FileLock::exclusive(&dir.lock())
            .with_context(|| format!("cannot lock {}", dir.lock().display()))
            .hint("check that its file system supports file locks")?;
        let path = dir.ledger();
        let text = read_or_empty(&path)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(place).hint(hint)?;
        let whole = whole_lines(&text);
        if whole.len() < text.len() {
            file.set_len(whole.len() as u64).with_context(place).hint(hint)?;
        }
        Ok(Self { file, _lock: lock, entries: parse(whole, &path)? })
    }

    /// All trials that the sweep ever had, by run id.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Appends lines and syncs them to disk. After a crash, the last line may be partial and is then ignored.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, events: &[Event]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for event in events {
            text.push_str(&serde_json::to_string(event)?);
            text.push('\n');
        }
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .context("cannot write the sweep's ledger")
            .hint("free some disk space")?;
        events.iter().for_each(|event| apply(&mut self.entries, event));
        Ok(())
    }

    /// Numbers the new trials, as one cohort.
    ///
    /// # Errors
    /// Those of [`Self::add`].
    pub fn register<'a>(&mut self, trials: impl Iterator<Item = (&'a str, &'a Values)>) -> Result<()> {
        let next =
            |of: &dyn Fn(&Entry) -> u64| self.entries.values().map(of).max().map_or(1, |last| last + 1);
        let (first, cohort) = (next(&|entry| entry.number), next(&|entry| entry.cohort));
        let unknown = trials.filter(|(id, _)| !self.entries.contains_key(*id));
        let events: Vec<Event> = unknown
            .zip(first..)
            .map(|((id, values), number)| Event::Trial {
                number,
                id: id.to_owned(),
                values: values.clone(),
                cohort,
            })
            .collect();
        self.add(&events)
    }
}

/// All trials of the sweep in `dir`, by run id; empty before it has started. Takes no lock.
///
/// # Errors
/// The file cannot be read, or a line is corrupted.
pub fn read(dir: &SweepDir) -> Result<BTreeMap<String, Entry>> {
    let path = dir.ledger();
    parse(whole_lines(&read_or_empty(&path)?), &path)
}

fn read_or_empty(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// `text` without a final line that lacks its newline.
fn whole_lines(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)]
}

fn parse(text: &[u8], path: &Path) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match serde_json::from_slice(line) {
            Ok(event) => apply(&mut entries, &event),
            Err(error) => bail!(
                UserError::failed(format!("{}:{} is damaged ({error})", path.display(), index + 1))
                    .hint("restore the file, or remove it to renumber the trials; their runs are kept")
            ),
        }
    }
    Ok(entries)
}

fn apply(entries: &mut BTreeMap<String, Entry>, event: &Event) {
    let mut change = |id: &str, change: &dyn Fn(&mut Entry)| {
        if let Some(entry) = entries.get_mut(id) {
            change(entry);
        }
    };
    match event {
        Event::Trial { number, id, cohort, .. } => {
            let entry = Entry {
                number: *number,
                cohort: *cohort,
                promoted_to: None,
                promotions: 0,
                ended: false,
                failed: None,
            };
            entries.insert(id.clone(), entry);
        }
        Event::Promoted { id, steps, .. } => change(id, &|entry| {
            entry.promoted_to = Some(*steps);
            entry.promotions += 1;
        }),
        Event::Ended { id, .. } => change(id, &|entry| entry.ended = true),
        Event::Failed { id, error } => change(id, &|entry| entry.failed = Some(error.clone())),
        Event::Retried { id } => change(id, &|entry| entry.failed = None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use oss_runs::run_dir::RunsDir;

    fn values(lr: f64) -> Values {
        Values::from([("optimizer.lr".to_owned(), json!(lr))])
    }

    #[test]
    fn trials_keep_their_numbers_and_new_ones_form_a_cohort() {
        let dir = tempfile::tempdir().unwrap();
        let sweep = RunsDir::new(dir.path()).sweep("lr");
        let all = [("a", values(1.0)), ("b", values(2.0)), ("c", values(3.0))];
        let some = |range: std::ops::Range<usize>| {
            all[range].iter().map(|(id, values)| (*id, values)).collect::<Vec<_>>().into_iter()
        };
        Ledger::open(&sweep).unwrap().register(some(1..3)).unwrap();
        let mut ledger = Ledger::open(&sweep).unwrap();
        // A value inserted before the others must not renumber them.
        ledger.register(some(0..3)).unwrap();
        let seen: Vec<_> =
            ledger.entries().iter().map(|(id, entry)| (id.as_str(), entry.number, entry.cohort)).collect();
        assert_eq!(seen, [("a", 3, 2), ("b", 1, 1), ("c", 2, 1)]);
    }

    #[test]
    fn a_torn_line_is_dropped_and_a_damaged_one_reported() {
        let dir = tempfile::tempdir().unwrap();
        let sweep = RunsDir::new(dir.path()).sweep("lr");
        let values = values(1.0);
        Ledger::open(&sweep).unwrap().register([("a", &values)].into_iter()).unwrap();
        let failed = Event::Failed { id: "a".into(), error: "no room".into() };
        let whole = fs::read_to_string(sweep.ledger()).unwrap();
        let torn = serde_json::to_string(&failed).unwrap();
        fs::write(sweep.ledger(), format!("{whole}{}", &torn[..torn.len() - 1])).unwrap();
        let mut ledger = Ledger::open(&sweep).unwrap();
        assert_eq!(ledger.entries()["a"].failed, None);
        ledger.add(&[failed, Event::Retried { id: "a".into() }]).unwrap();
        drop(ledger);
        assert_eq!(Ledger::open(&sweep).unwrap().entries()["a"].failed, None);
        assert_eq!(fs::read_to_string(sweep.ledger()).unwrap().lines().count(), 3);
        fs::write(sweep.ledger(), format!("{whole}nothing\n{whole}")).unwrap();
        let error = Ledger::open(&sweep).err().unwrap().to_string();
        assert!(error.contains("ledger.jsonl:2 is damaged"), "{error}");
    }
}
