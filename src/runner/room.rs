//! Room on the disk, looked at before hours of training instead of after them.

use anyhow::{Result, bail};
use indicatif::BinaryBytes;

use crate::plan::disk::{Disk, disk};
use oss_config::Experiment;
use oss_config::error::UserError;
use oss_runs::run_dir::{RunDir, free_bytes};
use oss_train::checkpoint;

/// Checks that the checkpoints and the export still to be written fit.
///
/// # Errors
/// They do not; the message says how much is missing and what needs less.
pub fn check(experiment: &Experiment, run: &RunDir) -> Result<()> {
    let needed = still_needed(&disk(experiment), checkpoint::list(&run.checkpoints()).len() as u64);
    // A file system that does not tell is no reason to stop; writing will say if it is full.
    let Ok(free) = free_bytes(run.root()) else { return Ok(()) };
    if needed > free {
        bail!(
            UserError::failed(format!(
                "not enough room in {}: checkpoints and export take {}, {} are free",
                run.root().display(),
                BinaryBytes(needed),
                BinaryBytes(free)
            ))
            .hint("free some, set checkpoint.keep_last lower, or give another place with --runs-dir")
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
    fn what_lies_there_needs_no_more_room() {
        let disk = Disk { checkpoint: 10, num_checkpoints: 3, export: 5 };
        assert_eq!(still_needed(&disk, 0), 35);
        assert_eq!(still_needed(&disk, 2), 15);
        // One is complete before another goes.
        assert_eq!(still_needed(&disk, 9), 15);
    }
}
