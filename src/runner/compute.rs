//! Work that all ranks do together: train, evaluate, sample. Every rank calls the same function; only the leader writes
//! the results.

use anyhow::Result;

use super::data::{self, Data};
use super::progress::watch;
use crate::plan::Graph;
use crate::plan::estimate::estimate;
use crate::plan::identity::steps_taken;
use crate::stages::evaluate::{self, Report};
use crate::stages::sample::{self, Samples, Weights};
use crate::stages::train;
use oss_config::Sample;
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::World;
use oss_train::train::{HeldOut, Inputs, Outcome};

/// Trains the run of `graph`, whose tokens are prepared.
///
/// # Errors
/// Those of [`oss_train::train::train`]; the tokens are corrupted or too few.
pub fn train(graph: &Graph, world: &World, stop_at_step: Option<u64>) -> Result<Outcome> {
    let Graph { experiment, inputs, identity, .. } = graph;
    let run = &identity.run;
    let data = Data::open(graph)?;
    // It is enough for one rank to verify the tokens.
    let sound = || data.verify().and_then(|()| data.check_lengths(experiment));
    world.all_ok(if world.is_leader() { sound() } else { Ok(()) })?;
    let tokenizer = data.tokenizer()?;
    let batches = data.batches(experiment)?;
    let held = data.validation()?;
    let open_initial = || match &inputs.initial {
        // Initial weights, which may be gone by now, are not needed once there is a checkpoint.
        Some(initial) if steps_taken(run) == 0 => initial.open(&experiment.model, watch()).map(Some),
        _ => Ok(None),
    };
    // The leader first, so that downloads happen only once.
    let mine = world.all_ok(if world.is_leader() { open_initial() } else { Ok(None) })?;
    let initial = if world.is_leader() { mine } else { open_initial()? };
    let validation =
        held.as_ref().map(|held| HeldOut { tokens: held, bytes_per_token: held.bytes_per_token });
    let inputs = Inputs {
        experiment,
        world,
        run_dir: run,
        batches: &batches,
        validation,
        tokenizer: &tokenizer,
        from_scratch: inputs.initial.is_none(),
        stop_at_step,
        flops_per_token: estimate(experiment).flops_per_token,
    };
    train::train(&inputs, initial)
}

/// The loss of `checkpoint` on the run's validation set; `None` if nothing was held out.
///
/// # Errors
/// The prepared data is missing, the checkpoint is corrupted, or stopped on request.
pub fn evaluate(graph: &Graph, world: &World, checkpoint: Checkpoint) -> Result<Option<Report>> {
    let data = Data::open(graph)?;
    let Some(held) = data.validation()? else { return Ok(None) };
    let inputs = evaluate::Inputs {
        experiment: &graph.experiment,
        world,
        checkpoint,
        tokens: &held,
        bytes_per_token: held.bytes_per_token,
        max_tokens: graph.experiment.evaluate.max_tokens,
        end_of_text: data.tokenizer()?.end_of_text(),
    };
    evaluate::evaluate(inputs).map(Some)
}

/// Samples continuations of the prompts in `settings`.
///
/// # Errors
/// The tokenizer is missing or rejects a prompt, the checkpoint is corrupted, or stopped on request.
pub fn sample(
    graph: &Graph,
    world: &World,
    checkpoint: Checkpoint,
    settings: &Sample,
    weights: Weights,
) -> Result<Samples> {
    sample::sample(sample::Inputs {
        experiment: &graph.experiment,
        world,
        settings,
        checkpoint,
        weights,
        tokenizer: &data::tokenizer(graph)?,
    })
}
