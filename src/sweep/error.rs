//! Errors in a sweep that are only found when its trials are determined.

use oss_config::error::{UserError, user_errors};
use std::path::PathBuf;

/// A problem that the user has to fix.
#[derive(Debug)]
pub enum SweepError {
    /// `skip` excludes every combination.
    AllSkipped,
    /// There are too few different draws.
    TooFew {
        /// How many were found.
        found: usize,
        /// `num_trials`.
        wanted: u64,
    },
    /// Two trials would be the same run.
    SameRun {
        /// Values of the first trial.
        first: String,
        /// Values of the second trial.
        second: String,
        /// Their run.
        run: PathBuf,
    },
    /// There are not enough GPUs for the parallel trials.
    TooParallel {
        /// Number of parallel trials.
        parallel: u64,
        /// Visible GPUs.
        gpus: u64,
        /// Ranks per trial.
        ranks: u64,
    },
    /// The file has no `[sweep]` section.
    NoSweep {
        /// The file.
        file: PathBuf,
    },
    /// There is no sweep with that name.
    Unknown {
        /// The requested name.
        name: String,
        /// Its missing results file.
        path: PathBuf,
    },
    /// A sweep under torchrun or SLURM.
    Launched,
}

impl From<SweepError> for UserError {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::AllSkipped => {
                Self::wrong("[[sweep.skip]] excludes every combination").hint("remove a condition")
            }
            SweepError::TooFew { found, wanted } => Self::wrong(format!(
                "sweep.num_trials is {wanted}, but the parameters have only {found} different \
                 combinations"
            ))
            .hint("lower sweep.num_trials or add values"),
            SweepError::SameRun { first, second, run } => Self::wrong(format!(
                "trials {first} and {second} are the same run ({}): the keys they differ in \
                 do not affect training",
                run.display()
            ))
            .hint(
                "sweep over keys that do (docs/staleness.md lists the stages that \
                 each key affects)",
            ),
            SweepError::TooParallel { parallel, gpus, ranks } => Self::wrong(format!(
                "{parallel} parallel trials with {ranks} ranks each do not fit on {gpus} GPUs"
            ))
            .hint(format!("set sweep.parallel to at most {}", (gpus / ranks).max(1))),
            SweepError::NoSweep { file } => Self::wrong(format!("{} has no [sweep] section", file.display()))
                .hint(
                    "run it with `oss-run run`, or add a section like the one from `oss-run init NAME \
                     --template sweep`",
                ),
            SweepError::Unknown { name, path } => {
                Self::wrong(format!("no sweep `{name}` ({} is missing)", path.display()))
                    .hint("pass the name of a folder created by `oss-run sweep`")
            }
            SweepError::Launched => Self::wrong("a sweep launches its trials itself")
                .hint("start a single process, without torchrun or srun"),
        }
    }
}

user_errors!(SweepError);
