//! What nobody needs any more: prepared data that no run names, and what killed processes left.
//!
//! A run names what it needs in its manifest before it looks whether that is there, and prepared data is made and removed
//! under one lock. So what is to go is moved aside first, the manifests are read once more, and what a run has asked for
//! meanwhile is put back.

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

/// What nobody holds a lock on, and no manifest names, is left alone until it is this old: its maker may be at work.
pub const MARGIN: Duration = Duration::from_secs(3600);

/// Something that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// What it is.
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that it takes.
    pub bytes: u64,
}

/// What was found, and removed unless that was only to be looked for.
#[derive(Debug, Default, Serialize)]
pub struct Collected {
    /// What nobody needs.
    pub garbage: Vec<Garbage>,
    /// What could not be decided, and why.
    pub kept: Vec<String>,
}

impl Collected {
    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.garbage.iter().map(|garbage| garbage.bytes).sum()
    }
}

/// Looks for garbage in `runs`, and removes it if that is `really` wanted. Runs may be at work.
///
/// # Errors
/// A folder cannot be read. What cannot be removed is told and passed over.
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
    /// Takes what is at `path`, by `remove` if it is really to go.
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

    /// Whether nothing at or under `path` was touched for a while.
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
                self.take("half-removed run", &path, |path| fs::remove_dir_all(path));
            }
        }
        Ok(())
    }

    /// Directories of runs that died before their first word.
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

    /// What killed processes left in a run that nobody writes to now.
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
        // Unfinished files go with the lock; from here on nobody makes new ones.
        let Ok(_lock) = run.lock_for_writing() else { return };
        for garbage in before {
            if garbage.path.exists() {
                self.take(garbage.what, &garbage.path, remove_any);
            } else {
                self.collected.garbage.push(garbage);
            }
        }
    }

    /// Puts back prepared data that a process had moved aside when it died.
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
        self.settle(aside);
        Ok(())
    }

    /// Deletes what was set aside, but puts back what a run has come to need.
    fn settle(&mut self, aside: Vec<Aside>) {
        let needed = self.needed().unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            None
        });
        for Aside { path, hidden, _lock } in aside {
            if needed.as_ref().is_none_or(|needed| needed.contains(&path)) {
                if let Err(error) = fs::rename(&hidden, &path) {
                    tracing::warn!(
                        "cannot put {} back: {error}\nhint: rename {}",
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
            // While its lock is ours: see `FileLock::try_exclusive`.
            let _ = fs::remove_file(lock_file(&path));
            self.collected.garbage.push(Garbage { what: what_prepared(&path), path, bytes });
        }
    }

    /// Prepared data that runs name; none, and a word about it, where a run does not tell.
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
        self.collected.kept = silent.iter().map(|why| format!("all prepared data is kept: {why}")).collect();
        Ok(None)
    }

    /// Lock files of prepared data that is gone, and what killed preparations left.
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
                // Without its successor it is the only one there is: `restore` gives it its name back.
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
            // Made while we waited for nobody: prepare holds the lock before the directory is there.
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
            self.collected.garbage.push(Garbage { what: "digests of files that are gone", path, bytes });
        }
    }
}

/// Prepared data that is out of everybody's sight, and that nobody makes anew meanwhile.
struct Aside {
    path: PathBuf,
    hidden: PathBuf,
    _lock: FileLock,
}

/// Hides prepared data that nobody is making.
fn set_aside(unneeded: Vec<PathBuf>) -> Vec<Aside> {
    let mut aside = Vec::new();
    for path in unneeded {
        let Ok(Some(lock)) = FileLock::try_exclusive(&lock_file(&path)) else { continue };
        let hidden = Sibling::Removed.of(&path.with_file_name(format!(".{}", name(&path))));
        match fs::rename(&path, &hidden) {
            Ok(()) => aside.push(Aside { path, hidden, _lock: lock }),
            Err(error) => {
                tracing::warn!("cannot remove {}: {error}\nhint: check its permissions", path.display());
            }
        }
    }
    aside
}

/// What is left in `run` by processes that died, if nobody writes to it.
fn leftovers(run: &RunDir) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for folder in [run.root().to_owned(), run.samples(), run.checkpoints()] {
        for path in entries(&folder).unwrap_or_default() {
            let name = name(&path);
            match Sibling::parse(&name) {
                Some((_, Sibling::Temporary)) if !FileLock::is_held(&path) => {
                    found.push(("unfinished directory", path))
                }
                Some((_, Sibling::Removed)) => found.push(("half-removed directory", path)),
                // Without its successor it is the only one there is.
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

/// Whether `run`, which has no manifest, holds what every run is made with and nothing else.
fn is_empty_run(run: &RunDir) -> bool {
    let folders = [run.tensorboard(), run.logs(), run.checkpoints(), run.samples()];
    let known = |path: &PathBuf| folders.contains(path) || *path == run.lock() || is_unfinished(&name(path));
    let is_empty =
        |folder: &PathBuf| *folder == run.logs() || entries(folder).is_ok_and(|found| found.is_empty());
    folders.iter().all(|folder| folder.is_dir() && is_empty(folder))
        && entries(run.root()).is_ok_and(|found| found.iter().all(known))
}

/// Whether a directory under `.prepared/` is one that prepare makes: a key, or a tokenizer's.
fn is_prepared(path: &Path) -> bool {
    let name = name(path);
    let key = name.strip_prefix("tokenizer-").unwrap_or(&name);
    key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn what_beside(kind: Sibling) -> &'static str {
    match kind {
        Sibling::Temporary => "unfinished prepared data",
        Sibling::Replaced => "replaced prepared data",
        Sibling::Removed => "half-removed prepared data",
    }
}

fn what_prepared(path: &Path) -> &'static str {
    if name(path).starts_with("tokenizer-") { "learnt tokenizer" } else { "prepared data" }
}

/// Whether nobody holds the lock on this file.
fn is_free(path: &Path) -> bool {
    !FileLock::is_held(path)
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// When anything at or under `path` was changed last.
fn newest(path: &Path) -> Option<SystemTime> {
    let found = fs::symlink_metadata(path).ok()?;
    let own = found.modified().ok()?;
    let inner = if found.is_dir() { entries(path).unwrap_or_default() } else { Vec::new() };
    Some(inner.iter().filter_map(|path| newest(path)).fold(own, SystemTime::max))
}

/// What is in a folder, in order; nothing in one that is not there.
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

    /// A run that names `key` among what it has prepared.
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
    fn a_run_that_starts_meanwhile_has_its_data() {
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
        collector.settle(aside);
        assert_eq!(fs::read(wanted.join("train.bin")).unwrap(), b"1234");
        assert!(!other.exists());
        let removed: Vec<&Path> = collector.collected.garbage.iter().map(|it| it.path.as_path()).collect();
        assert_eq!(removed, [other.as_path()]);
        // Nothing is needed less for having been looked at.
        collector.prepared().unwrap();
        assert!(wanted.exists());
    }
}
