//! The text of an experiment, and where it is prepared.

use anyhow::Result;

use super::inputs::Inputs;
use super::keys::{Key, KeyInputs};
use oss_config::Experiment;
use oss_runs::run_dir::RunsDir;

/// What determines the prepared tokens of an experiment, whatever its run.
#[derive(Clone, Copy, Debug)]
pub struct Corpus<'a> {
    /// The experiment, with its tokenizer.
    pub experiment: &'a Experiment,
    /// Its inputs.
    pub inputs: &'a Inputs,
    /// The runs directory, with the prepared data.
    pub runs: &'a RunsDir,
}

impl Corpus<'_> {
    /// The prepared training sources, in order.
    ///
    /// # Errors
    /// Those of [`Inputs::prepared_sources`].
    pub fn prepared_sources(&self) -> Result<Vec<Key>> {
        Ok(self.inputs.prepared_sources(self.experiment)?.iter().map(KeyInputs::key).collect())
    }

    /// The prepared validation text, if it is a separate source.
    ///
    /// # Errors
    /// Those of [`Inputs::prepared_validation`].
    pub fn prepared_validation(&self) -> Result<Option<Key>> {
        Ok(self.inputs.prepared_validation(self.experiment)?.as_ref().map(KeyInputs::key))
    }
}
