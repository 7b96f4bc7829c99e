//! What an experiment leaves to its inputs, including what only the prepared text determines.

use anyhow::{Result, bail};

use super::data::prepare_corpus;
use super::preflight;
use super::progress::watch;
use crate::plan::inputs::pinned;
use crate::plan::{self, Corpus, Inputs, NetworkAccess};
use oss_config::Resolved;
use oss_config::error::UserError;
use oss_runs::run_dir::RunsDir;

/// [`plan::complete`], which may query the hub. With `train.epochs`, the text is prepared first: its tokens determine the
/// number of steps.
///
/// # Errors
/// Those of [`plan::complete`]; the text cannot be prepared, or the machine cannot train (unless `force_start`).
pub fn complete(resolved: &Resolved, runs: &RunsDir, force_start: bool) -> Result<Resolved> {
    let hub = NetworkAccess::Hub(watch());
    let resolved = plan::complete(resolved, runs, hub)?;
    let experiment = &resolved.experiment;
    if experiment.train.epochs.is_none() {
        return Ok(resolved);
    }
    preflight::check_machine(experiment, force_start)?;
    let Some(inputs) = Inputs::find(experiment, runs, hub)? else { bail!(unresolved()) };
    let experiment = pinned(experiment, &inputs);
    prepare_corpus(Corpus { experiment: &experiment, inputs: &inputs, runs }, false)?;
    plan::complete(&resolved, runs, hub)
}

/// The error for an input on the hub whose commit is still unknown.
pub fn unresolved() -> UserError {
    UserError::failed("cannot resolve the dataset on the hub").hint("check the network and HF_ENDPOINT")
}
