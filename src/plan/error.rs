//! Why an experiment cannot be run as it is.

use oss_config::error::{UserError, user_errors};
use std::path::PathBuf;

/// What the user has to change, in the experiment or on the command line.
#[derive(Debug)]
pub enum PlanError {
    /// The steps that an existing run has taken would have had another learning rate.
    StepsRaised {
        /// The existing run.
        run: PathBuf,
        /// Its steps.
        old: u64,
        /// The steps asked for.
        new: u64,
    },
    /// The run is further than it shall go.
    AlreadyPast {
        /// The existing run.
        run: PathBuf,
        /// Steps taken.
        taken: u64,
        /// The steps asked for.
        asked: u64,
    },
    /// A value that makes another run was to be changed in an existing one.
    OtherTrajectory {
        /// The existing run.
        run: PathBuf,
        /// The key.
        key: String,
    },
    /// The text names more tokens than the model knows.
    VocabularyTooSmall {
        /// The experiment's.
        set: i64,
        /// The tokenizer's.
        tokens: i64,
    },
    /// A source of text is not there, or cannot be read.
    Text {
        /// The source.
        name: String,
        /// Why.
        cause: anyhow::Error,
    },
}

impl From<PlanError> for UserError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::StepsRaised { run, old, new } => Self::wrong(format!(
                "{}: train.steps {old} -> {new} changes the learning rate of steps already taken",
                run.display()
            ))
            .hint("set schedule.decay_steps, or start a run with model.init_from"),
            PlanError::AlreadyPast { run, taken, asked } => Self::wrong(format!(
                "{}: {taken} steps are taken already, more than train.steps = {asked}",
                run.display()
            ))
            .hint(format!("set train.steps to {taken} or more, or start another run with --new")),
            PlanError::OtherTrajectory { run, key } => Self::wrong(format!(
                "{key} decides the weights that a run comes to, and cannot change in {}",
                run.display()
            ))
            .hint(
                "run the changed experiment as a run of its own, or start one from these \
                 weights with model.init_from",
            ),
            PlanError::VocabularyTooSmall { set, tokens } => {
                Self::wrong(format!("model.vocab_size is {set} and the tokenizer has {tokens} tokens"))
                    .hint(format!("set it to {tokens} or more, or unset it"))
            }
            PlanError::Text { name, cause } => {
                Self::wrong(format!("cannot read the text of `{name}`")).because(cause)
            }
        }
    }
}

user_errors!(PlanError);
