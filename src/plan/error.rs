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
        /// Whether the number of steps ends the decay because `schedule.decay_steps` is unset.
        ends_decay: bool,
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
    /// The tokenizer is not that of the initial weights.
    OtherTokenizer {
        /// `model.init_from`.
        weights: String,
        /// How the tokenizers differ.
        difference: String,
    },
    /// The tokenizer has more tokens than the model's vocabulary.
    VocabularyTooSmall {
        /// `model.vocab_size`, set or taken from the initial weights.
        set: i64,
        /// The tokenizer's number of tokens.
        tokens: i64,
        /// Whether the experiment has initial weights.
        has_weights: bool,
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
            PlanError::StepsRaised { run, old, new, ends_decay } => {
                let lowest = match ends_decay {
                    true => format!("to continue at the lowest learning rate, set schedule.decay_steps = {old}; "),
                    false => String::new(),
                };
                Self::wrong(format!(
                    "{}: changing train.steps from {old} to {new} would change the learning rate of steps already taken",
                    run.display()
                ))
                .hint(format!(
                    "{lowest}to train {new} steps from the start, pass --new; to train on from its weights, set \
                     model.init_from = \"{}\" and another run.name",
                    run.display()
                ))
            }
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
            PlanError::OtherTokenizer { weights, difference } => Self::wrong(format!(
                "dataset.tokenizer does not give the tokens that the weights in {weights} were trained on: {difference}"
            ))
            .hint("unset dataset.tokenizer to use the tokenizer of the weights"),
            PlanError::VocabularyTooSmall { set, tokens, has_weights } => {
                Self::wrong(format!("model.vocab_size is {set}, but the tokenizer has {tokens} tokens")).hint(
                    match has_weights {
                        true => "unset dataset.tokenizer to use the tokenizer of the weights".to_owned(),
                        false => format!("set it to {tokens} or more, or unset it"),
                    },
                )
            }
            PlanError::Text { name, cause } => {
                Self::wrong(format!("cannot read the text of `{name}`")).because(cause)
            }
        }
    }
}

user_errors!(PlanError);
