//! What is wrong with a sweep that its file alone does not show.

use oss_config::error::{UserError, user_errors};
use std::path::PathBuf;

/// What the user has to change.
#[derive(Debug)]
pub enum SweepError {
    /// `skip` leaves nothing.
    AllSkipped,
    /// Draws repeat themselves.
    TooFew {
        /// How many were found.
        found: usize,
        /// `num_trials`.
        wanted: u64,
    },
    /// Two trials would be one run.
    SameRun {
        /// Values of the one.
        first: String,
        /// Values of the other.
        second: String,
        /// Their run.
        run: PathBuf,
    },
    /// There are fewer GPUs than trials at once.
    TooParallel {
        /// Trials at once.
        parallel: u64,
        /// Visible GPUs.
        gpus: u64,
        /// Ranks of a trial.
        ranks: u64,
    },
    /// The file sweeps nothing.
    NoSweep {
        /// The file.
        file: PathBuf,
    },
    /// There is no sweep of that name.
    Unknown {
        /// What was asked for.
        name: String,
        /// Its results.
        path: PathBuf,
    },
    /// A sweep under torchrun or SLURM.
    Launched,
}

impl From<SweepError> for UserError {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::AllSkipped => {
                Self::wrong("every combination is left out by [[sweep.skip]]").hint("take a condition out")
            }
            SweepError::TooFew { found, wanted } => Self::wrong(format!(
                "the parameters have only {found} different combinations, and {wanted} are \
                 asked for"
            ))
            .hint("lower sweep.num_trials, or add values"),
            SweepError::SameRun { first, second, run } => Self::wrong(format!(
                "the trials {first} and {second} are the same run ({}): what they differ in \
                 does not change what is trained",
                run.display()
            ))
            .hint(
                "sweep over keys that do (see which keys each stage depends on in \
                 docs/run-directory.md)",
            ),
            SweepError::TooParallel { parallel, gpus, ranks } => Self::wrong(format!(
                "{parallel} trials at once do not fit {gpus} GPUs with {ranks} ranks each"
            ))
            .hint(format!("set sweep.parallel to at most {}", (gpus / ranks).max(1))),
            SweepError::NoSweep { file } => Self::wrong(format!("{} has no [sweep] section", file.display()))
                .hint(
                    "run it with `oss-run run`, or add one, as `oss-run init NAME --template \
                     sweep` writes it",
                ),
            SweepError::Unknown { name, path } => {
                Self::wrong(format!("there is no sweep {name} ({} is missing)", path.display()))
                    .hint("give the name of a folder that `oss-run sweep` made")
            }
            SweepError::Launched => Self::wrong("a sweep starts its trials itself")
                .hint("start one process, without torchrun or srun"),
        }
    }
}

user_errors!(SweepError);
