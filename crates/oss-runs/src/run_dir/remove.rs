//! Removal of runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::atomic::sync_dir;
use super::{RunDir, RunsDir, WriteLock};
use crate::storage::Sibling;
use oss_config::error::{UserError, user_errors};

/// A run, or what is left of one, cannot be removed.
#[derive(Debug)]
pub struct RemoveError {
    path: PathBuf,
    source: io::Error,
}

impl From<RemoveError> for UserError {
    fn from(error: RemoveError) -> Self {
        let RemoveError { path, source } = error;
        Self::failed(format!("cannot remove {}", path.display()))
            .hint("check its permissions, then run `oss-run gc` to finish the removal")
            .because(source)
    }
}

user_errors!(RemoveError);

impl RunDir {
    /// Deletes the run and everything in it, and the parent directory if it was the only run of its name.
    ///
    /// The run is first renamed to a hidden name, so that a crash leaves either a complete run or something that
    /// [`RunsDir::half_removed`] finds, never an incomplete run.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn remove(&self, _lock: WriteLock) -> Result<(), RemoveError> {
        let failed = |source| RemoveError { path: self.root().to_owned(), source };
        let parent = self.root().parent().unwrap_or(Path::new("."));
        let aside = Sibling::Removed.of(&parent.join(format!(".{}", self.id())));
        fs::rename(self.root(), &aside).and_then(|()| sync_dir(parent)).map_err(failed)?;
        fs::remove_dir_all(&aside).map_err(|source| RemoveError { path: aside.clone(), source })?;
        // If there are other runs of this name, the directory stays.
        let _ = fs::remove_dir(parent);
        Ok(())
    }
}

impl RunsDir {
    /// What interrupted removals left behind.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn half_removed(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for name in self.names()? {
            for entry in fs::read_dir(name)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_removed =
                    matches!(Sibling::parse(&name), Some((run, Sibling::Removed)) if run.starts_with('.'));
                if is_removed && path.is_dir() {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::run_dir::Manifest;

    fn runs(ids: &[&str]) -> (tempfile::TempDir, RunsDir) {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        for id in ids {
            let run = runs.run("tiny", id);
            run.create().unwrap();
            Manifest::new(*id, "tiny", Value::Null).save(&run).unwrap();
        }
        (dir, runs)
    }

    #[test]
    fn removing_the_last_run_removes_its_folder() {
        let (dir, runs) = runs(&["aa", "bb"]);
        let remove = |id| {
            let run = runs.run("tiny", id);
            run.remove(run.lock_for_writing().unwrap()).unwrap();
        };
        remove("aa");
        assert_eq!(runs.list().unwrap(), [runs.run("tiny", "bb")]);
        remove("bb");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_half_removed_run_is_not_a_run_and_is_found() {
        let (_dir, runs) = runs(&["aa"]);
        let run = runs.run("tiny", "aa");
        let aside = run.root().with_file_name(".aa.removed-0123456789abcdef");
        fs::rename(run.root(), &aside).unwrap();
        assert!(runs.list().unwrap().is_empty());
        assert_eq!(runs.half_removed().unwrap(), [aside]);
    }
}
