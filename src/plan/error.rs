//! Errors in an experiment that are only found when planning.

use oss_config::error::{UserError, user_errors};
use std::path::PathBuf;

/// A problem that the user has to fix in the experiment or on the command line.
#[derive(Debug)]
pub enum PlanError {
    /// The change would alter the learning rate of steps that an existing run has already taken.
    StepsRaised {
        /// The existing run.
        run: PathBuf,
        /// Its number of steps.
        old: u64,
        /// The requested number of steps.
        new: u64,
    },
    /// The run is already past the requested number of steps.
    AlreadyPast {
        /// The existing run.
        run: PathBuf,
        /// Steps taken.
        taken: u64,
        /// The requested number of steps.
        asked: u64,
    },
    /// An existing run was to be resumed with a changed value that would make it another run.
    OtherTrajectory {
        /// The existing run.
        run: PathBuf,
        /// The key.
        key: String,
    },
    /// The tokenizer has more tokens than the model's vocabulary.
    VocabularyTooSmall {
        /// `model.vocab_size`.
        set: i64,
        /// The tokenizer's number of tokens.
        tokens: i64,
    },
    /// A text source is missing or cannot be read.
    Text {
        /// The source.
        name: String,
        /// The cause.
        cause: anyhow::Error,
    },
}

impl From<PlanError> for UserError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::StepsRaised { run, old, new } => Self::wrong(format!(
                "{}: changing train.steps from {old} to {new} would change the learning rate of steps already taken",
                run.display()
            ))
            .hint("set schedule.decay_steps, or start a new run with model.init_from"),
            PlanError::AlreadyPast { run, taken, asked } => Self::wrong(format!(
                "{}: the run has already taken {taken} steps, more than train.steps = {asked}",
                run.display()
            ))
            .hint(format!("set train.steps to {taken} or more, or start a new run with --new")),
            PlanError::OtherTrajectory { run, key } => Self::wrong(format!(
                "{key} affects the weights, so it cannot be changed in the existing run {}",
                run.display()
            ))
            .hint(
                "run the changed experiment as a new run, or initialize a new run from these \
                 weights with model.init_from",
            ),
            PlanError::VocabularyTooSmall { set, tokens } => {
                Self::wrong(format!("model.vocab_size is {set}, but the tokenizer has {tokens} tokens"))
                    .hint(format!("set it to {tokens} or more, or unset it"))
            }
            PlanError::Text { name, cause } => {
                Self::wrong(format!("cannot read the text of `{name}`")).because(cause)
            }
        }
    }
}

user_errors!(PlanError);
