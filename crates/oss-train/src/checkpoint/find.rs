//! Finding checkpoints by looking, on one rank or on many that must come to the same answer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Checkpoint, Error, Result};
use oss_config::error::ErrorReport;
use oss_runs::storage::Sibling;

/// Steps and directories of the complete checkpoints in `dir`, oldest first.
///
/// Complete means that the manifest matches its digest and every file has its size; [`Checkpoint::verify`] looks at
/// every byte. A missing `dir` holds none.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    scan(dir).into_iter().filter(|(_, path)| Checkpoint::open(path).is_ok()).collect()
}

/// Step of the newest directory in `dir` that ought to be a checkpoint, by its name alone.
pub fn newest_step(dir: &Path) -> Option<u64> {
    scan(dir).last().map(|(step, _)| *step)
}

/// Directories in `dir` that ought to be checkpoints, newest first, whole or not.
///
/// Ranks take the leader's list: on a shared file system two of them may see different ones for a moment.
pub fn candidates(dir: &Path) -> Vec<PathBuf> {
    scan(dir).into_iter().rev().map(|(_, path)| path).collect()
}

/// One rank's part in finding the first whole checkpoint among `candidates`, each looked at by all ranks together.
///
/// `(rank, ranks)` says who this is. `agree` is called once a candidate with what this rank found wrong with it, and
/// returns what any rank found wrong, the same on all: a candidate is whole when no rank has a complaint. Every rank
/// thus opens the same checkpoint, or fails alike. Damaged ones are passed over with a warning that names the damage;
/// it is an error when all are damaged, so that nobody starts over from nothing by mistake. One rank alone agrees with
/// itself.
pub fn newest_whole<E: From<Error>>(
    dir: &Path,
    candidates: &[PathBuf],
    (rank, ranks): (usize, usize),
    mut agree: impl FnMut(Option<String>) -> Result<Option<String>, E>,
) -> Result<Option<Checkpoint>, E> {
    let mut problems = Vec::new();
    for path in candidates {
        let opened = Checkpoint::open(path)
            .and_then(|checkpoint| checkpoint.verify_share(rank, ranks).map(|()| checkpoint))
            .map_err(|error| ErrorReport::of(error).summary());
        let complaint = opened.as_ref().err().cloned();
        match (agree(complaint)?, opened) {
            (None, Ok(checkpoint)) => {
                for problem in problems {
                    tracing::warn!("{problem}; going on from step {}", checkpoint.step());
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

/// Steps and directories that ought to be checkpoints, oldest first.
fn scan(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(names) = fs::read_dir(dir) else { return Vec::new() };
    let names: Vec<String> =
        names.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut found: Vec<_> = names.iter().filter_map(|name| Some((step_of(name)?, dir.join(name)))).collect();
    for name in &names {
        // A process that died while replacing a checkpoint may have left the step under this name alone.
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

/// The directory of a step's checkpoint inside `checkpoints/`.
pub(super) fn directory_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step in a directory's name; none for other names.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (directory_name(step) == name).then_some(step)
}
