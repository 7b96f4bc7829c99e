//! What is wrong with a sweep that its file alone does not show.

use std::path::PathBuf;

/// What the user has to change.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// `skip` leaves nothing.
    #[error("every combination is left out by [[sweep.skip]]; take a condition out")]
    AllSkipped,
    /// Draws repeat themselves.
    #[error(
        "the parameters have only {found} different combinations, and {wanted} are asked for; lower sweep.num_trials, or \
         add values"
    )]
    TooFew {
        /// How many were found.
        found: usize,
        /// `num_trials`.
        wanted: u64,
    },
    /// Two trials would be one run.
    #[error(
        "the trials {first} and {second} are the same run ({}): what they differ in does not change what is trained; \
         sweep over keys that do (see which keys each stage depends on in docs/run-directory.md)",
        .run.display()
    )]
    SameRun {
        /// Values of the one.
        first: String,
        /// Values of the other.
        second: String,
        /// Their run.
        run: PathBuf,
    },
    /// There are fewer GPUs than trials at once.
    #[error("{parallel} trials at once do not fit {gpus} GPUs with {ranks} ranks each; set sweep.parallel to at most {}", (.gpus / .ranks).max(1))]
    TooParallel {
        /// Trials at once.
        parallel: u64,
        /// Visible GPUs.
        gpus: u64,
        /// Ranks of a trial.
        ranks: u64,
    },
    /// The file sweeps nothing.
    #[error("{} has no [sweep] section; run it with `oss-run run`, or add one, as `oss-run init NAME --template sweep` writes it", .file.display())]
    NoSweep {
        /// The file.
        file: PathBuf,
    },
    /// There is no sweep of that name.
    #[error("there is no sweep {name} ({} is missing); give the name of a folder that `oss-run sweep` made", .path.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Its results.
        path: PathBuf,
    },
    /// A sweep under torchrun or SLURM.
    #[error("a sweep starts its trials itself; start one process, without torchrun or srun")]
    Launched,
}
