//! Deleting old checkpoints.

use std::{collections::BTreeSet, path::Path};

use super::{Error, Result, find::list};
use oss_runs::storage::{Disk, FileLock, Sibling};

/// Deletes the checkpoints in `dir` that need not be kept, and returns their steps.
///
/// The newest `keep_last` are kept, as are multiples of `keep_every`, `best` if `keep_best` is set, the `protected`
/// steps (such as the last one before the decay of a WSD schedule), and those that are open in any process. Damaged
/// checkpoints are not counted, and are left for the user to inspect.
pub fn prune(
    dir: &Path,
    policy: &oss_config::Checkpoint,
    best: Option<u64>,
    protected: &[u64],
) -> Result<Vec<u64>> {
    prune_with(&Disk::default(), dir, policy, best, protected)
}

pub(super) fn prune_with(
    disk: &Disk,
    dir: &Path,
    policy: &oss_config::Checkpoint,
    best: Option<u64>,
    protected: &[u64],
) -> Result<Vec<u64>> {
    let complete = list(dir);
    let steps: Vec<u64> = complete.iter().map(|(step, _)| *step).collect();
    let retained = retained(&steps, policy, best, protected);
    let mut pruned = Vec::new();
    for (step, path) in complete.into_iter().filter(|(step, _)| !retained.contains(step)) {
        if remove_with(disk, &path)? {
            pruned.push(step);
        }
    }
    Ok(pruned)
}

/// The steps to keep; `steps` are in ascending order.
fn retained(
    steps: &[u64],
    policy: &oss_config::Checkpoint,
    best: Option<u64>,
    protected: &[u64],
) -> BTreeSet<u64> {
    let newest = steps.iter().rev().take(policy.keep_last.max(1) as usize);
    let multiples = policy.keep_every.filter(|every| *every > 0);
    let multiples = steps.iter().filter(|step| multiples.is_some_and(|every| step.is_multiple_of(every)));
    let best = best.filter(|_| policy.keep_best);
    newest.chain(multiples).chain(protected).copied().chain(best).collect()
}

/// Deletes one checkpoint. If any process has it open, leaves it and returns false.
pub fn remove(path: &Path) -> Result<bool> {
    remove_with(&Disk::default(), path)
}

fn remove_with(disk: &Disk, path: &Path) -> Result<bool> {
    let Some(_lock) = FileLock::try_directory(path).map_err(Error::io("open", path))? else {
        return Ok(false);
    };
    // Renamed first: a half-deleted directory must not look like a checkpoint.
    let removed = Sibling::Removed.of(path);
    disk.rename(path, &removed).map_err(Error::io("remove", path))?;
    disk.remove_dir_all(&removed).map_err(Error::io("remove", &removed))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(keep_last: u64, keep_every: Option<u64>, keep_best: bool) -> oss_config::Checkpoint {
        oss_config::Checkpoint { every_steps: 10, keep_last, keep_every, keep_best, background: false }
    }

    #[test]
    fn keeps_the_newest_multiples_the_best_and_protected_steps() {
        let steps = [10, 20, 30, 40, 50, 60];
        let kept_steps = |policy, best, protected: &[u64]| {
            retained(&steps, &policy, best, protected).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(kept_steps(policy(2, None, false), Some(10), &[]), [50, 60]);
        assert_eq!(kept_steps(policy(1, Some(20), false), None, &[]), [20, 40, 60]);
        assert_eq!(kept_steps(policy(1, None, true), Some(10), &[30]), [10, 30, 60]);
        assert_eq!(kept_steps(policy(0, Some(0), false), None, &[]), [60]);
    }
}
