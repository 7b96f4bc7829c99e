//! Checks disk space before hours of training rather than after.

use std::path::Path;

use anyhow::{Result, bail};
use indicatif::BinaryBytes;

use crate::plan::disk::{Disk, disk};
use oss_config::Experiment;
use oss_config::error::UserError;
use oss_runs::run_dir::{RunDir, free_bytes};
use oss_train::checkpoint;

/// Checks that there is space for the remaining checkpoints and the export.
///
/// # Errors
/// There is too little; the message says how much is needed and how to reduce it.
pub fn check(experiment: &Experiment, run: &RunDir, runs: &Path) -> Result<()> {
    let needed = still_needed(&disk(experiment), checkpoint::list(&run.checkpoints()).len() as u64);
    // If the file system does not report free space, continue; writing fails if it is full.
    let Ok(free) = free_bytes(run.root()).or_else(|_| free_bytes(runs)) else { return Ok(()) };
    if needed > free {
        bail!(
            UserError::failed(format!(
                "not enough disk space in {}: checkpoints and export need {}, but only {} are free",
                runs.display(),
                BinaryBytes(needed),
                BinaryBytes(free)
            ))
            .hint("free some space, lower checkpoint.keep_last, choose another directory with --runs-dir, or start anyway with \
                 `run --force-start`")
        );
    }
    Ok(())
}

fn still_needed(disk: &Disk, existing: u64) -> u64 {
    let to_come = disk.num_checkpoints.saturating_sub(existing).max(1);
    disk.checkpoint.saturating_mul(to_come).saturating_add(disk.export)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_checkpoints_need_no_more_space() {
        let disk = Disk { checkpoint: 10, num_checkpoints: 3, export: 5 };
        assert_eq!(still_needed(&disk, 0), 35);
        assert_eq!(still_needed(&disk, 2), 15);
        // A checkpoint is complete before the one it replaces is removed.
        assert_eq!(still_needed(&disk, 9), 15);
    }
}
