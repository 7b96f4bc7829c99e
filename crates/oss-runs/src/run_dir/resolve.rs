//! Resolves a RUN argument: a path, an ID, a name (its most recent run), `name/id`, or `last`. A unique prefix of an ID
//! is enough.

use oss_config::error::{UserError, user_errors};
use std::fs;
use std::io;
use std::path::{MAIN_SEPARATOR, PathBuf};

use chrono::{DateTime, Utc};

use super::{Manifest, ManifestError, RunDir, RunsDir};

/// Why a RUN argument names no run, or more than one.
#[derive(Debug)]
pub enum ResolveError {
    /// A path to something that is not a run.
    NotARun(ManifestError),
    /// No run has this ID or name.
    NotFound {
        /// The argument.
        asked: String,
        /// The directory of all runs.
        runs: PathBuf,
        /// The most similar ID or name.
        nearest: Option<String>,
    },
    /// The prefix is ambiguous.
    Ambiguous {
        /// The argument.
        asked: String,
        /// The matching runs, as `name/id`.
        candidates: Vec<String>,
    },
    /// The directory of all runs cannot be read.
    Io {
        /// The directory of all runs.
        runs: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<ResolveError> for UserError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotARun(error) => Self::from(error).as_wrong(),
            ResolveError::NotFound { asked, runs, nearest } => {
                Self::wrong(format!("no run `{asked}` in {}", runs.display()))
                    .hint(suggest(nearest.as_deref()))
            }
            ResolveError::Ambiguous { asked, candidates } => {
                Self::wrong(format!("`{asked}` is ambiguous: it could be {}", candidates.join(" or ")))
                    .hint("give a longer prefix, or the full name/id")
            }
            ResolveError::Io { runs, source } => Self::wrong(format!("cannot read {}", runs.display()))
                .hint("check its permissions, or choose another directory with --runs-dir")
                .because(source),
        }
    }
}

user_errors!(ResolveError);

impl From<ManifestError> for ResolveError {
    fn from(error: ManifestError) -> Self {
        Self::NotARun(error)
    }
}

impl RunsDir {
    /// Resolves `asked`. A path takes precedence over an ID, an ID over a name, and a name over a prefix of an ID.
    ///
    /// # Errors
    /// If there is no such run, or more than one; the error has the nearest name or the candidates.
    pub fn resolve(&self, asked: &str) -> Result<RunDir, ResolveError> {
        let trimmed = asked.trim_end_matches(MAIN_SEPARATOR);
        if let Some(run) = [PathBuf::from(trimmed), self.root().join(trimmed)]
            .map(RunDir::new)
            .into_iter()
            .find(|run| !trimmed.is_empty() && run.exists())
        {
            return Ok(run);
        }
        let runs = self.list().map_err(|source| ResolveError::Io { runs: self.root().into(), source })?;
        if asked.contains(MAIN_SEPARATOR) {
            let (name, prefix) = trimmed.rsplit_once(MAIN_SEPARATOR).unwrap_or_default();
            let is_it = |run: &RunDir| run.name() == name && run.id().starts_with(prefix);
            let candidates: Vec<RunDir> = runs.into_iter().filter(is_it).collect();
            return match candidates.is_empty() {
                true => Err(ManifestError::Missing { run: asked.into() }.into()),
                false => only(asked, candidates),
            };
        }
        if asked == "last" {
            return newest(&runs).ok_or_else(|| self.not_found(asked, &runs));
        }
        let matching = |test: &dyn Fn(&RunDir) -> bool| -> Vec<RunDir> {
            runs.iter().filter(|run| test(run)).cloned().collect()
        };
        let mut candidates = matching(&|run| run.id() == asked);
        if candidates.is_empty() {
            if let Some(run) = newest(&matching(&|run| run.name() == asked)) {
                return Ok(run);
            }
            candidates = matching(&|run| !asked.is_empty() && run.id().starts_with(asked));
        }
        if candidates.is_empty() {
            return Err(self.not_found(asked, &runs));
        }
        only(asked, candidates)
    }

    fn not_found(&self, asked: &str, runs: &[RunDir]) -> ResolveError {
        let nearest = runs
            .iter()
            .flat_map(|run| [run.name(), run.id()])
            .map(|known| (strsim::jaro_winkler(asked, &known), known))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, known)| known);
        ResolveError::NotFound { asked: asked.into(), runs: self.root().into(), nearest }
    }
}

/// The only one of `candidates`, which are not empty.
fn only(asked: &str, mut candidates: Vec<RunDir>) -> Result<RunDir, ResolveError> {
    if candidates.len() == 1 {
        return Ok(candidates.remove(0));
    }
    let candidates = candidates.iter().map(|run| format!("{}/{}", run.name(), run.id())).collect();
    Err(ResolveError::Ambiguous { asked: asked.into(), candidates })
}

/// The run that was started last.
fn newest(runs: &[RunDir]) -> Option<RunDir> {
    runs.iter().max_by_key(|run| last_started(run)).cloned()
}

/// When `run` was last started. A damaged manifest must not hide its run, so the file's modification time stands in.
fn last_started(run: &RunDir) -> DateTime<Utc> {
    match Manifest::load(run) {
        Ok(manifest) => manifest.last_started(),
        Err(_) => fs::metadata(run.manifest())
            .and_then(|file| file.modified())
            .map_or(DateTime::UNIX_EPOCH, DateTime::<Utc>::from),
    }
}

fn suggest(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "run `oss-run ls` to list the runs".into(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::Value;

    use super::*;
    use oss_config::error::ErrorReport;

    /// Runs created an hour apart, in this order.
    fn runs(known: &[(&str, &str)]) -> (tempfile::TempDir, RunsDir) {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path().join("runs"));
        for (age, (name, id)) in known.iter().enumerate() {
            let run = runs.run(name, id);
            run.create().unwrap();
            let mut manifest = Manifest::new(*id, *name, Value::Null);
            manifest.created += TimeDelta::hours(age as i64);
            manifest.save(&run).unwrap();
        }
        (dir, runs)
    }

    #[test]
    fn ids_prefixes_names_last_and_paths() {
        let (_dir, runs) = runs(&[
            ("tiny", "a1b2c3d4e5"),
            ("tiny", "a1b2c3d4e5-2"),
            ("big", "ffeeddccbb"),
            ("small", "0011223344"),
        ]);
        for (asked, expected) in [
            ("ff", "ffeeddccbb"),
            ("ffeeddccbb", "ffeeddccbb"),
            ("a1b2c3d4e5", "a1b2c3d4e5"),
            ("a1b2c3d4e5-", "a1b2c3d4e5-2"),
            ("tiny", "a1b2c3d4e5-2"),
            ("big", "ffeeddccbb"),
            ("last", "0011223344"),
            ("big/ffee", "ffeeddccbb"),
            ("big/ffeeddccbb/", "ffeeddccbb"),
            ("tiny/a1b2c3d4e5", "a1b2c3d4e5"),
        ] {
            assert_eq!(runs.resolve(asked).unwrap().id(), expected, "{asked}");
        }
        let path = runs.run("big", "ffeeddccbb");
        assert_eq!(runs.resolve(path.root().to_str().unwrap()).unwrap(), path);
        assert_eq!(runs.resolve(&format!("{}/", path.root().display())).unwrap(), path);
    }

    #[test]
    fn the_newest_is_the_last_started() {
        let (_dir, runs) = runs(&[("tiny", "aaaa"), ("tiny", "bbbb")]);
        let run = runs.run("tiny", "aaaa");
        let mut manifest = Manifest::load(&run).unwrap();
        let started = manifest.created + TimeDelta::hours(9);
        manifest.segments.push(super::super::Segment { started, ..Default::default() });
        manifest.save(&run).unwrap();
        assert_eq!(runs.resolve("tiny").unwrap(), run);
        assert_eq!(runs.resolve("last").unwrap(), run);
    }

    #[test]
    fn an_ambiguous_prefix_lists_its_candidates() {
        let (_dir, runs) = runs(&[("tiny", "a1b2"), ("big", "a1ff")]);
        let error = runs.resolve("a1").unwrap_err();
        insta::assert_snapshot!(ErrorReport::of(error), @r"
        `a1` is ambiguous: it could be big/a1ff or tiny/a1b2
        hint: give a longer prefix, or the full name/id
        ");
        assert_eq!(runs.resolve("big/a1").unwrap().id(), "a1ff");
    }

    #[test]
    fn a_name_that_looks_like_an_id() {
        let (_dir, runs) = runs(&[("bad", "a1b2"), ("tiny", "bad0")]);
        assert_eq!(runs.resolve("bad").unwrap().id(), "a1b2");
        assert_eq!(runs.resolve("bad0").unwrap().id(), "bad0");
    }

    #[test]
    fn a_wrong_name_suggests_the_nearest() {
        let (_dir, runs) = runs(&[("quickstart", "a1b2")]);
        let error = ErrorReport::of(runs.resolve("quikstart").unwrap_err()).to_string();
        assert!(error.ends_with("did you mean quickstart?"), "{error}");
        let error = ErrorReport::of(runs.resolve("zzz").unwrap_err()).to_string();
        assert!(error.ends_with("to list the runs"), "{error}");
        assert!(runs.resolve("").is_err());
        let (_dir, empty) = self::runs(&[]);
        assert!(matches!(empty.resolve("last"), Err(ResolveError::NotFound { .. })));
    }

    #[test]
    fn a_path_without_a_run_is_not_taken_for_a_name() {
        let (_dir, runs) = runs(&[("tiny", "a1b2")]);
        let error = ErrorReport::of(runs.resolve("some/where").unwrap_err()).to_string();
        assert!(error.starts_with("some/where is not a run directory"), "{error}");
    }

    #[test]
    fn a_damaged_manifest_does_not_hide_its_run() {
        let (_dir, runs) = runs(&[("tiny", "a1b2")]);
        let run = runs.run("tiny", "a1b2");
        fs::write(run.manifest(), "{").unwrap();
        assert_eq!(runs.resolve("last").unwrap(), run);
        assert_eq!(runs.resolve("tiny").unwrap(), run);
    }
}
