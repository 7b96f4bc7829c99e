//! The stages of the graph and their order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One stage: prepare -> train -> evaluate -> sample -> export.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Text to tokens.
    Prepare,
    /// Tokens to weights.
    Train,
    /// Validation loss of the last checkpoint.
    Evaluate,
    /// Texts continued by the last checkpoint.
    Sample,
    /// A Hugging Face directory.
    Export,
}

impl Stage {
    /// Every stage, in the order in which they run.
    pub const ALL: [Self; 5] = [Self::Prepare, Self::Train, Self::Evaluate, Self::Sample, Self::Export];

    /// The stage's name, as on the command line and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Sample => "sample",
            Self::Export => "export",
        }
    }

    /// Version of the stage's meaning, raised by hand when the same values and inputs would give another result.
    /// A raised train version is reported on existing runs, which are not trained again unless forced.
    pub fn version(self) -> u32 {
        match self {
            Self::Prepare => 1,
            Self::Train => 1,
            Self::Evaluate => 1,
            Self::Sample => 1,
            Self::Export => 1,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
