//! evaluate: the validation loss of some weights.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use oss_config::Experiment;
use oss_runs::monitor::{Progress, Unit};
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::World;
use oss_train::evaluation::{self, Evaluation};
use oss_train::libtorch_error::guard;
use oss_train::model::{Chain, matmul_kind};
use oss_train::train::{configure_torch, device};

/// What an evaluation reads.
pub struct Inputs<'a> {
    /// The experiment, with `model.vocab_size` set.
    pub experiment: &'a Experiment,
    /// The ranks that share the work, this one among them.
    pub world: &'a World,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// The text as tokens, each document closed by end-of-text.
    pub tokens: &'a [u32],
    /// Bytes of text that a token stands for, on average.
    pub bytes_per_token: f64,
    /// Tokens to score at most.
    pub max_tokens: Option<u64>,
    /// The token that closes documents.
    pub end_of_text: u32,
}

/// What an evaluation found, as `evaluation.json` keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Steps that the weights were trained for.
    pub step: u64,
    /// Digest of the weights.
    pub weights: String,
    /// The loss in nats a byte of text.
    pub nats_per_byte: f64,
    /// The loss in bits a byte of text.
    pub bits_per_byte: f64,
    /// The loss in nats a token, perplexity, expert load.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// Scores the text.
///
/// # Errors
/// A text of fewer than two tokens, a damaged checkpoint, a stop on request.
pub fn evaluate(inputs: Inputs<'_>) -> Result<Report> {
    let Inputs { experiment, world, mut checkpoint, tokens, bytes_per_token, max_tokens, end_of_text } =
        inputs;
    let train = &experiment.train;
    configure_torch(train, experiment.run.deterministic, world.local_size())?;
    let kind = matmul_kind(train.precision);
    let options = evaluation::Options {
        sequence_length: usize::try_from(train.sequence_length).context("train.sequence_length")?,
        max_tokens,
        end_of_text: train.document_mask.then(|| i64::from(end_of_text)),
    };
    let scored = max_tokens.unwrap_or(u64::MAX).min((tokens.len() as u64).saturating_sub(1));
    let progress = Progress::new("evaluate", Some(scored), Unit::Tokens);
    let device = device(train, world.local_rank())?;
    let (step, weights) = (checkpoint.step(), checkpoint.weights_digest().to_owned());
    let evaluation = guard(|| {
        let mesh = world.mesh(&experiment.sharding, device)?;
        let shards = super::weights(world, &mesh, &experiment.model, &mut checkpoint, kind)?;
        let chain = Chain { model: &experiment.model, weights: &shards, kind };
        evaluation::evaluate(&chain, &mesh, tokens, options, |done| {
            progress.set_position(done);
            mesh.check_interrupt()
        })
    })?;
    let nats_per_byte = evaluation.loss / bytes_per_token;
    let bits_per_byte = nats_per_byte / std::f64::consts::LN_2;
    Ok(Report { step, weights, nats_per_byte, bits_per_byte, evaluation })
}
