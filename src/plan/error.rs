//! Why an experiment cannot be run as it is.

use std::path::PathBuf;

/// What the user has to change, in the experiment or on the command line.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The steps that an existing run has taken would have had another learning rate.
    #[error(
        "{}: train.steps {old} -> {new} changes the learning rate of steps already taken; set schedule.decay_steps, or \
         start a run with model.init_from",
        .run.display()
    )]
    StepsRaised {
        /// The existing run.
        run: PathBuf,
        /// Its steps.
        old: u64,
        /// The steps asked for.
        new: u64,
    },
    /// The run is further than it shall go.
    #[error(
        "{}: {taken} steps are taken already, more than train.steps = {asked}; set train.steps to {taken} or more, or \
         start another run with --new",
        .run.display()
    )]
    AlreadyPast {
        /// The existing run.
        run: PathBuf,
        /// Steps taken.
        taken: u64,
        /// The steps asked for.
        asked: u64,
    },
    /// A value that makes another run was to be changed in an existing one.
    #[error(
        "{key} decides the weights that a run comes to, and cannot change in {}; run the changed experiment as a run of \
         its own, or start one from these weights with model.init_from",
        .run.display()
    )]
    OtherTrajectory {
        /// The existing run.
        run: PathBuf,
        /// The key.
        key: String,
    },
    /// The text names more tokens than the model knows.
    #[error(
        "model.vocab_size is {set} and the tokenizer has {tokens} tokens; set it to {tokens} or more, or unset it"
    )]
    VocabularyTooSmall {
        /// The experiment's.
        set: i64,
        /// The tokenizer's.
        tokens: i64,
    },
    /// A source of text is not there, or cannot be read.
    #[error("cannot read the text of `{name}`")]
    Text {
        /// The source.
        name: String,
        /// Why.
        #[source]
        cause: anyhow::Error,
    },
}
