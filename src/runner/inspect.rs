//! Batches and logits of a run, to check it against other implementations.

use std::ops::Range;

use anyhow::{Result, ensure};
use serde::Serialize;
use tch::Kind;

use super::data::{self, Data};
use super::loaded_run::Trained;
use oss_config::error::UserError;
use oss_train::distributed::{Mesh, Shards};
use oss_train::libtorch_error::catch_torch_panic;
use oss_train::model::{Chain, Sequences, matmul_kind};
use oss_train::train::{GlobalBatch, configure_torch, device};

/// The sequences of a step.
#[derive(Debug, Serialize)]
pub struct Batch {
    /// The step, counted from 1 as in the metrics.
    pub step: u64,
    /// T + 1 tokens per sequence.
    pub tokens: Vec<Vec<i64>>,
}

/// The model's predictions after each token of a text.
#[derive(Debug, Serialize)]
pub struct Logits {
    /// Tokens of the text.
    pub prompt_tokens: Vec<i64>,
    /// Logits over the vocabulary after each token: `[T][V]`.
    pub logits: Vec<Vec<f32>>,
}

impl Trained {
    /// The batches that take training from step `steps.start` to step `steps.end`.
    ///
    /// # Errors
    /// The prepared data is missing.
    pub fn batches(&self, steps: Range<u64>) -> Result<Vec<Batch>> {
        let batches = Data::open(self.graph())?.batches(self.experiment())?;
        let batch = |step| {
            let tokens = GlobalBatch::of_step(&batches, &self.experiment().train, step).into_rows();
            Ok(Batch { step: step + 1, tokens })
        };
        steps.map(batch).collect()
    }

    /// The logits of a text.
    ///
    /// # Errors
    /// The tokenizer is missing or rejects the text, the text has no tokens, or the checkpoint is corrupted.
    pub fn logits(mut self, text: &str) -> Result<Logits> {
        let tokens = data::tokenizer(self.graph())?.encode(text)?;
        ensure!(
            !tokens.is_empty(),
            UserError::failed("the prompt has no tokens").hint("pass a non-empty --prompt")
        );
        let prompt_tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
        let experiment = self.experiment().clone();
        configure_torch(&experiment.train, experiment.run.deterministic, 1)?;
        let (device, kind) = (device(&experiment.train, 0)?, matmul_kind(experiment.train.precision));
        let logits = catch_torch_panic(|| {
            let _no_grad = tch::no_grad_guard();
            let mesh = Mesh::alone(device);
            let weights = Shards::load(&experiment.model, self.checkpoint(), &mesh, kind)?;
            let chain = Chain { model: &experiment.model, weights: &weights, kind };
            let logits = chain.logits(&Sequences::new(&[&prompt_tokens], None, device))?;
            Ok(Vec::<Vec<f32>>::try_from(logits.get(0).to_kind(Kind::Float))?)
        })?;
        Ok(Logits { prompt_tokens, logits })
    }
}
