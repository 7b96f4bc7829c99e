//! Garbage collection: prepared data that no run references, and leftovers of killed processes.
//!
//! A run lists what it needs in its manifest before checking whether it exists, and prepared data is created and
//! removed under one lock. So garbage is first moved aside, then the manifests are read again, and whatever a run has
//! come to need in the meantime is moved back.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;

use super::overview::{bytes_in, listed};
use super::used;
use crate::plan::inputs::digest_cache;
use crate::stages::prepare::lock_file;
use oss_config::error::{Hint, UserError};
use oss_data::recover;
use oss_data::sources::DigestCache;
use oss_runs::run_dir::{RunDir, RunsDir, is_unfinished};
use oss_runs::storage::{FileLock, Sibling};

/// Minimum age of unlocked, unreferenced files before removal: their creator may still be running.
pub const MARGIN: Duration = Duration::from_secs(3600);

/// An unused file or directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// Its kind.
    pub what: &'static str,
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What was found and, unless it was a dry run, removed.
#[derive(Debug, Default, Serialize)]
pub struct Collected {
    /// The garbage.
    pub garbage: Vec<Garbage>,
    /// What was kept because its use is unknown, and why.
    pub kept: Vec<String>,
}

impl Collected {
    /// Total size in bytes.
    pub fn bytes(&self) -> u64 {
        self.garbage.iter().map(|garbage| garbage.bytes).sum()
    }
}

/// Finds garbage in `runs`, and removes it if `really` is set. Runs may be in progress.
///
/// # Errors
/// A directory cannot be read. Files that cannot be removed are reported and skipped.
pub fn collect(runs: &RunsDir, really: bool) -> Result<Collected> {
    let mut collector = Collector { runs, really, now: SystemTime::now(), collected: Collected::default() };
    let unreadable = || format!("cannot read {}", runs.root().display());
    let hint = "check its permissions";
    collector.dry_runs().with_context(unreadable).hint(hint)?;
    collector.half_removed().with_context(unreadable).hint(hint)?;
    collector.unstarted().with_context(unreadable).hint(hint)?;
    for run in listed(runs)? {
        collector.run(&run);
    }
    collector.prepared()?;
    collector.leftovers_of_prepare().with_context(unreadable).hint(hint)?;
    collector.digests();
    Ok(collector.collected)
}

struct Collector<'a> {
    runs: &'a RunsDir,
    really: bool,
    now: SystemTime,
    collected: Collected,
}

impl Collector<'_> {
    /// Records the garbage at `path`, and removes it with `remove` unless this is a dry run.
    fn take(&mut self, what: &'static str, path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) {
        let bytes = bytes_in(path);
        if self.really
            && let Err(error) = remove(path)
        {
            tracing::warn!("cannot remove {}: {error}\nhint: check its permissions", path.display());
            return;
        }
        self.collected.garbage.push(Garbage { what, path: path.to_owned(), bytes });
    }

    /// Whether nothing at or under `path` was modified recently.
    fn is_old(&self, path: &Path) -> bool {
        newest(path).is_some_and(|time| self.now.duration_since(time).is_ok_and(|age| age >= MARGIN))
    }

    fn dry_runs(&mut self) -> io::Result<()> {
        for path in entries(self.runs.root())? {
            if name(&path).starts_with(".dry-run-") && self.is_old(&path) && !FileLock::is_held(&path) {
                self.take("dry run", &path, |path| fs::remove_dir_all(path));
            }
        }
        Ok(())
    }

    fn half_removed(&mut self) -> io::Result<()> {
        for path in self.runs.half_removed()? {
            if !RunDir::new(&path).in_use() {
                self.take("partly removed run", &path, |path| fs::remove_dir_all(path));
            }
        }
        Ok(())
    }

    /// Directories of runs that died before writing a manifest.
    fn unstarted(&mut self) -> io::Result<()> {
        for run in self.runs.unstarted()? {
            if !run.in_use() && self.is_old(run.root()) && is_empty_run(&run) {
                self.take("run that never started", run.root(), |_| {
                    let lock =
                        run.lock_for_writing().map_err(|error| io::Error::other(UserError::from(error)))?;
                    if run.exists() {
                        return Err(io::Error::other("it has just been started"));
                    }
                    run.remove(lock).map_err(|error| io::Error::other(UserError::from(error)))
                });
            }
        }
        Ok(())
    }

    /// Leftovers of killed processes in a run that is not in progress.
    fn run(&mut self, run: &RunDir) {
        if run.in_use() || leftovers(run).is_empty() {
            return;
        }
        let bytes_of = |found: Vec<(&'static str, PathBuf)>| -> Vec<Garbage> {
            let garbage = |(what, path): (_, PathBuf)| Garbage { what, bytes: bytes_in(&path), path };
            found.into_iter().map(garbage).collect()
        };
        if !self.really {
            self.collected.garbage.extend(bytes_of(leftovers(run)));
            return;
        }
        let before = bytes_of(leftovers(run));
        // Unfinished files are removed under the lock, so that no new ones appear.
        let Ok(_lock) = run.lock_for_writing() else { return };
        for garbage in before {
            if garbage.path.exists() {
                self.take(garbage.what, &garbage.path, remove_any);
            } else {
                self.collected.garbage.push(garbage);
            }
        }
    }

    /// Restores prepared data that a process had moved aside when it died.
    fn restore(&self) -> io::Result<()> {
        let folder = self.runs.all_prepared();
        for path in entries(&folder)? {
            if let Some((target, Sibling::Replaced)) = Sibling::parse(&name(&path))
                && !folder.join(target).exists()
                && let Ok(Some(_lock)) = FileLock::try_exclusive(&lock_file(&folder.join(target)))
            {
                recover(&folder.join(target));
            }
        }
        Ok(())
    }

    fn prepared(&mut self) -> Result<()> {
        if self.really {
            self.restore().with_context(|| format!("cannot read {}", self.runs.all_prepared().display()))?;
        }
        let Some(needed) = self.needed()? else { return Ok(()) };
        let unneeded: Vec<PathBuf> = entries(&self.runs.all_prepared())?
            .into_iter()
            .filter(|path| is_prepared(path) && !needed.contains(path) && self.is_old(path))
            .collect();
        if !self.really {
            for path in unneeded {
                self.take(what_prepared(&path), &path, remove_any);
            }
            return Ok(());
        }
        let aside = set_aside(unneeded);
        self.delete_or_restore(aside);
        Ok(())
    }

    /// Deletes what was moved aside, but restores what a run has come to need.
    fn delete_or_restore(&mut self, aside: Vec<SetAside>) {
        let needed = self.needed().unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            None
        });
        for SetAside { path, hidden, _lock } in aside {
            if needed.as_ref().is_none_or(|needed| needed.contains(&path)) {
                if let Err(error) = fs::rename(&hidden, &path) {
                    tracing::warn!(
                        "cannot restore {}: {error}\nhint: rename {}",
                        path.display(),
                        hidden.display()
                    );
                }
                continue;
            }
            let bytes = bytes_in(&hidden);
            if let Err(error) = fs::remove_dir_all(&hidden) {
                tracing::warn!("cannot remove {}: {error}\nhint: check its permissions", hidden.display());
                continue;
            }
            // While we hold its lock: see `FileLock::try_exclusive`.
            let _ = fs::remove_file(lock_file(&path));
            self.collected.garbage.push(Garbage { what: what_prepared(&path), path, bytes });
        }
    }

    /// Prepared data that runs reference; `None`, with a note, if a run's needs are unknown.
    fn needed(&mut self) -> Result<Option<BTreeSet<PathBuf>>> {
        let mut needed = BTreeSet::new();
        let mut silent = Vec::new();
        for (_, needs) in used::all(self.runs)? {
            match needs {
                Ok(needs) => needed.extend(needs.prepared),
                Err(error) => silent.push(format!("{error:#}")),
            }
        }
        for run in self.runs.unstarted()? {
            if run.previous_manifest().is_file() {
                silent.push(format!("{} is missing", run.manifest().display()));
            }
        }
        if silent.is_empty() {
            return Ok(Some(needed));
        }
        self.collected.kept = silent.iter().map(|why| format!("keeping all prepared data: {why}")).collect();
        Ok(None)
    }

    /// Lock files of missing prepared data, and leftovers of killed preparations.
    fn leftovers_of_prepare(&mut self) -> io::Result<()> {
        for path in entries(&self.runs.all_prepared())? {
            let name = name(&path);
            if let Some(dir) =
                path.extension().is_some_and(|end| end == "lock").then(|| path.with_extension(""))
            {
                if is_prepared(&dir) && !dir.exists() && self.is_old(&path) {
                    self.remove_lock_file(&dir, &path);
                }
            } else if let Some((target, kind)) = Sibling::parse(&name) {
                let dir = path.with_file_name(target.trim_start_matches('.'));
                // Without a successor it is the only copy: `restore` gives it its name back.
                let is_only = kind == Sibling::Replaced && !dir.exists();
                if !is_only && is_free(&lock_file(&dir)) && is_free(&path) {
                    self.take(what_beside(kind), &path, remove_any);
                }
            } else if (name.starts_with(".tmp") || is_unfinished(&name)) && self.is_old(&path) {
                self.take("unfinished file", &path, remove_any);
            }
        }
        Ok(())
    }

    fn remove_lock_file(&mut self, dir: &Path, path: &Path) {
        if !is_free(path) {
            return;
        }
        self.take("lock file", path, |path| match FileLock::try_exclusive(path)? {
            // Created in the meantime: prepare takes the lock before it creates the directory.
            Some(_lock) if !dir.exists() => fs::remove_file(path),
            _ => Ok(()),
        });
    }

    fn digests(&mut self) {
        let path = digest_cache(self.runs);
        let mut cache = DigestCache::open(Some(&path));
        let share = cache.forget_gone();
        if share > 0.0 {
            let bytes = (bytes_in(&path) as f64 * share) as u64;
            if self.really {
                cache.save();
            }
            self.collected.garbage.push(Garbage { what: "digests of missing files", path, bytes });
        }
    }
}

/// Prepared data that has been moved aside, with the lock that prevents it from being recreated.
struct SetAside {
    path: PathBuf,
    hidden: PathBuf,
    _lock: FileLock,
}

/// Moves prepared data aside unless another process is creating it.
fn set_aside(unneeded: Vec<PathBuf>) -> Vec<SetAside> {
    let mut aside = Vec::new();
    for path in unneeded {
        let Ok(Some(lock)) = FileLock::try_exclusive(&lock_file(&path)) else { continue };
        let hidden = Sibling::Removed.of(&path.with_file_name(format!(".{}", name(&path))));
        match fs::rename(&path, &hidden) {
            Ok(()) => aside.push(SetAside { path, hidden, _lock: lock }),
            Err(error) => {
                tracing::warn!("cannot remove {}: {error}\nhint: check its permissions", path.display());
            }
        }
    }
    aside
}

/// Leftovers of dead processes in `run`, which must not be in progress.
fn leftovers(run: &RunDir) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for folder in [run.root().to_owned(), run.samples(), run.checkpoints()] {
        for path in entries(&folder).unwrap_or_default() {
            let name = name(&path);
            match Sibling::parse(&name) {
                Some((_, Sibling::Temporary)) if !FileLock::is_held(&path) => {
                    found.push(("unfinished directory", path))
                }
                Some((_, Sibling::Removed)) => found.push(("partly removed directory", path)),
                // Without a successor it is the only copy.
                Some((target, Sibling::Replaced)) if path.with_file_name(target).exists() => {
                    found.push(("replaced directory", path));
                }
                None if is_unfinished(&name) => found.push(("unfinished file", path)),
                _ => {}
            }
        }
    }
    found
}

/// Whether `run`, which has no manifest, contains only the files that every new run starts with.
fn is_empty_run(run: &RunDir) -> bool {
    let folders = [run.tensorboard(), run.logs(), run.checkpoints(), run.samples()];
    let known = |path: &PathBuf| folders.contains(path) || *path == run.lock() || is_unfinished(&name(path));
    let is_empty =
        |folder: &PathBuf| *folder == run.logs() || entries(folder).is_ok_and(|found| found.is_empty());
    folders.iter().all(|folder| folder.is_dir() && is_empty(folder))
        && entries(run.root()).is_ok_and(|found| found.iter().all(known))
}

/// Whether a directory under `.prepared/` was created by prepare: named by a key, or a tokenizer.
fn is_prepared(path: &Path) -> bool {
    let name = name(path);
    let key = name.strip_prefix("tokenizer-").unwrap_or(&name);
    key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn what_beside(kind: Sibling) -> &'static str {
    match kind {
        Sibling::Temporary => "unfinished prepared data",
        Sibling::Replaced => "replaced prepared data",
        Sibling::Removed => "partly removed prepared data",
    }
}

fn what_prepared(path: &Path) -> &'static str {
    if name(path).starts_with("tokenizer-") { "trained tokenizer" } else { "prepared data" }
}

/// Whether this file is unlocked.
fn is_free(path: &Path) -> bool {
    !FileLock::is_held(path)
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Last modification time of anything at or under `path`.
fn newest(path: &Path) -> Option<SystemTime> {
    let found = fs::symlink_metadata(path).ok()?;
    let own = found.modified().ok()?;
    let inner = if found.is_dir() { entries(path).unwrap_or_default() } else { Vec::new() };
    Some(inner.iter().filter_map(|path| newest(path)).fold(own, SystemTime::max))
}

/// The sorted entries of a directory; empty if it does not exist.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use oss_config::Experiment;
    use oss_runs::run_dir::{Manifest, StageRecord, StageState};

    /// A run that references `key` as prepared data.
    fn start(runs: &RunsDir, key: &str) {
        let run = runs.run("tiny", "aa");
        run.create().unwrap();
        let mut manifest = Manifest::new("aa", "tiny", serde_json::to_value(Experiment::default()).unwrap());
        manifest.inputs = json!({"sources": [], "validation": null, "tokenizer": "t", "initial": null});
        let record = StageRecord {
            state: StageState::Done,
            key: String::new(),
            version: 1,
            values: Default::default(),
            inputs: [("source main".to_owned(), key.to_owned())].into(),
            outputs: Default::default(),
            started: manifest.created,
            finished: None,
            reason: None,
        };
        manifest.stages.insert("prepare".to_owned(), record);
        manifest.save(&run).unwrap();
    }

    #[test]
    fn a_run_started_meanwhile_keeps_its_data() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let [wanted, other] = ["a", "b"].map(|digit| runs.prepared(&digit.repeat(64)));
        for path in [&wanted, &other] {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join("train.bin"), "1234").unwrap();
        }
        let (now, collected) = (SystemTime::now() + 2 * MARGIN, Collected::default());
        let mut collector = Collector { runs: &runs, really: true, now, collected };
        let aside = set_aside(vec![wanted.clone(), other.clone()]);
        assert!(!wanted.exists() && !other.exists());
        start(&runs, &"a".repeat(64));
        collector.delete_or_restore(aside);
        assert_eq!(fs::read(wanted.join("train.bin")).unwrap(), b"1234");
        assert!(!other.exists());
        let removed: Vec<&Path> = collector.collected.garbage.iter().map(|it| it.path.as_path()).collect();
        assert_eq!(removed, [other.as_path()]);
        // A dry run changes nothing.
        collector.prepared().unwrap();
        assert!(wanted.exists());
    }
}
