//! The evaluate stage: computes the validation loss.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use oss_config::Experiment;
use oss_runs::monitor::{Progress, TensorBoard, Unit, tag};
use oss_runs::run_dir::RunDir;
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::World;
use oss_train::evaluation::{self, Evaluation};
use oss_train::libtorch_error::catch_torch_panic;
use oss_train::model::{Chain, matmul_kind};
use oss_train::train::{configure_torch, device};

/// Inputs of an evaluation.
pub struct Inputs<'a> {
    /// The experiment, with `model.vocab_size` set.
    pub experiment: &'a Experiment,
    /// The ranks that share the work, including this one.
    pub world: &'a World,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// The text as tokens; each document ends with the end-of-text token.
    pub tokens: &'a [u32],
    /// Average bytes of text per token.
    pub bytes_per_token: f64,
    /// Maximum number of tokens to evaluate.
    pub max_tokens: Option<u64>,
    /// The end-of-text token.
    pub end_of_text: u32,
}

/// Results of an evaluation, as stored in `evaluation.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Step of the checkpoint.
    pub step: u64,
    /// Digest of the weights.
    pub weights: String,
    /// The loss in nats per byte of text.
    pub nats_per_byte: f64,
    /// The loss in bits per byte of text.
    pub bits_per_byte: f64,
    /// The loss in nats per token, perplexity and expert load.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

impl Report {
    /// Adds the losses to the curves in TensorBoard, unless training evaluated the same checkpoint: it does so only
    /// every `evaluate.every_steps`, and the HParams tab shows the last value of a curve.
    pub fn show(&self, run: &RunDir, experiment: &Experiment) {
        let every = experiment.evaluate.every_steps;
        if every == 0 || !self.step.is_multiple_of(every) {
            let mut board = TensorBoard::open(&run.tensorboard(), None);
            board.scalar(&tag("val_loss"), self.step, self.evaluation.loss);
            board.scalar(&tag("val_nats_per_byte"), self.step, self.nats_per_byte);
        }
    }
}

/// Evaluates the text.
///
/// # Errors
/// The text has fewer than two tokens, the checkpoint is corrupted, or stopped on request.
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
    let evaluation = catch_torch_panic(|| {
        let mesh = world.mesh(&experiment.sharding, device)?;
        let shards = super::load_weights(world, &mesh, &experiment.model, &mut checkpoint, kind)?;
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
