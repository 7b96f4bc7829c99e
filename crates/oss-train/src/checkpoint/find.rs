//! Finding checkpoints by scanning a directory, on one rank or on several that must find the same one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Checkpoint, Error, Result};
use oss_config::error::ErrorReport;
use oss_runs::storage::Sibling;

/// Steps and directories of the complete checkpoints in `dir`, oldest first.
///
/// Complete means that the manifest matches its digest and that all files have the right sizes and headers;
/// [`Checkpoint::verify`] checks every byte. A missing `dir` has none.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    scan(dir).into_iter().filter(|(_, path)| Checkpoint::open(path).is_ok()).collect()
}

/// Step of the newest directory in `dir` that is named like a checkpoint.
pub fn newest_step(dir: &Path) -> Option<u64> {
    scan(dir).last().map(|(step, _)| *step)
}

/// Directories in `dir` that are named like checkpoints, newest first, intact or not.
///
/// All ranks use the leader's list: on a shared file system, they may briefly see different directories.
pub fn candidates(dir: &Path) -> Vec<PathBuf> {
    scan(dir).into_iter().rev().map(|(_, path)| path).collect()
}

/// Finds the first intact checkpoint among `candidates`, which all ranks verify together.
///
/// `(rank, ranks)` identifies this rank. `agree` is called once per candidate with the problem that this rank found, if
/// any, and returns the problem that any rank found, the same on all ranks. A candidate is intact if no rank found a
/// problem, so all ranks open the same checkpoint or return the same error. Damaged candidates are skipped with a
/// warning that describes the damage. If all are damaged, that is an error, so that training does not silently start
/// over. For a single rank, `agree` returns its argument.
pub fn newest_whole<E: From<Error>>(
    dir: &Path,
    candidates: &[PathBuf],
    (rank, ranks): (usize, usize),
    mut agree: impl FnMut(Option<String>) -> Result<Option<String>, E>,
) -> Result<Option<Checkpoint>, E> {
    let mut problems = Vec::new();
    for path in candidates {
        let opened = Checkpoint::open(path)
            .and_then(|checkpoint| checkpoint.verify_part(rank, ranks).map(|()| checkpoint))
            .map_err(|error| ErrorReport::of(error).summary());
        let complaint = opened.as_ref().err().cloned();
        match (agree(complaint)?, opened) {
            (None, Ok(checkpoint)) => {
                for problem in problems {
                    tracing::warn!("{problem}; using the checkpoint of step {} instead", checkpoint.step());
                }
                return Ok(Some(checkpoint));
            }
            (Some(problem), _) | (None, Err(problem)) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        return Ok(None);
    }
    Err(Error::AllDamaged { dir: dir.to_owned(), problems: problems.join("\n") }.into())
}

/// Steps and directories that are named like checkpoints, oldest first.
fn scan(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(names) = fs::read_dir(dir) else { return Vec::new() };
    let names: Vec<String> =
        names.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut found: Vec<_> = names.iter().filter_map(|name| Some((step_of(name)?, dir.join(name)))).collect();
    for name in &names {
        // A process that was killed while replacing a checkpoint may have left the step under this name only.
        if let Some((target, Sibling::Replaced)) = Sibling::parse(name)
            && let Some(step) = step_of(target)
            && !found.iter().any(|(other, _)| *other == step)
        {
            found.push((step, dir.join(name)));
        }
    }
    found.sort();
    found
}

/// Name of the directory for a step's checkpoint in `checkpoints/`.
pub(super) fn directory_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step in a directory's name; `None` for other names.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (directory_name(step) == name).then_some(step)
}
