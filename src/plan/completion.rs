//! Values that an experiment leaves to its inputs: shape and tokenizer of the initial weights, the size of the
//! vocabulary, and the number of steps.

use anyhow::{Context, Result};

use super::corpus::Corpus;
use super::epochs;
use super::error::PlanError;
use super::initial::Initial;
use super::inputs::{Inputs, NetworkAccess};
use super::tokenizer;
use oss_config::{Declared, Resolved};
use oss_data::Tokenizer;
use oss_runs::run_dir::RunsDir;

/// The experiment with these values filled in. A tokenizer on the hub is pinned and downloaded, as is the configuration
/// of weights on the hub. `train.epochs` becomes a number of steps if the text is prepared, and is left otherwise.
///
/// # Errors
/// The weights cannot be found, or their shape does not go with the rest; the tokenizer cannot be read, or has more
/// tokens than `model.vocab_size`; it is on the hub, and not downloaded yet while `reach` is local; the number of steps
/// does not go with the rest.
pub fn complete(resolved: &Resolved, runs: &RunsDir, reach: NetworkAccess<'_>) -> Result<Resolved> {
    let known = resolved.warnings.len();
    let resolved = completed(resolved.clone(), runs, reach)?;
    for warning in &resolved.warnings[known..] {
        tracing::warn!("{warning}");
    }
    Ok(resolved)
}

fn completed(mut resolved: Resolved, runs: &RunsDir, reach: NetworkAccess<'_>) -> Result<Resolved> {
    if let Some(weights) = resolved.experiment.model.init_from.clone() {
        match declared(&weights, &resolved, runs, reach)? {
            Some(declared) => resolved = resolved.with_declared(&declared)?,
            None => tracing::warn!(
                "the shape and the tokenizer of {weights} are not known yet, so [model] and dataset.tokenizer are taken \
                 as they are\nhint: `oss-run run EXPERIMENT.toml --until prepare` downloads what is needed"
            ),
        }
    }
    let dataset = &mut resolved.experiment.dataset;
    dataset.tokenizer = tokenizer::located(&dataset.tokenizer, runs, reach)?;
    let tokens = Tokenizer::facts(&dataset.tokenizer, dataset.end_of_text.as_deref())?.vocab_size;
    let resolved = resolved.with_vocabulary(tokens);
    let experiment = &resolved.experiment;
    if let Some(set) = experiment.model.vocab_size.filter(|set| *set < tokens) {
        let has_weights = experiment.model.init_from.is_some();
        return Err(PlanError::VocabularyTooSmall { set, tokens, has_weights }.into());
    }
    let Some(epochs) = experiment.train.epochs else { return Ok(resolved) };
    let Some(inputs) = Inputs::find(experiment, runs, reach)? else { return Ok(resolved) };
    match epochs::steps(Corpus { experiment, inputs: &inputs, runs }, epochs)? {
        Some(steps) => Ok(resolved.with_steps(steps)?),
        None => Ok(resolved),
    }
}

/// What the weights `named` declare, as far as `resolved` leaves it to them; `None` if they are on the hub and `reach` is
/// local.
fn declared(
    named: &str,
    resolved: &Resolved,
    runs: &RunsDir,
    reach: NetworkAccess<'_>,
) -> Result<Option<Declared>> {
    let context = || format!("cannot load model.init_from = {named:?}");
    let Some(initial) = Initial::find(named, runs, reach)? else { return Ok(None) };
    let model = initial.shape(reach).with_context(context)?;
    if model.is_none() && initial.path().is_none() {
        return Ok(None);
    }
    let mut declared = Declared { model, ..Declared::default() };
    if !resolved.provenance.is_set("dataset.tokenizer")
        && let Some(theirs) = initial.tokenizer(reach).with_context(context)?
        && !theirs.is(&resolved.experiment.dataset.tokenizer)
    {
        declared.tokenizer = Some(theirs.choice);
        declared.end_of_text = theirs.end_of_text;
    }
    Ok(Some(declared))
}
