//! The sample stage: generates text.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::Kind;

use oss_config::{Experiment, Precision, Sample};
use oss_data::Tokenizer;
use oss_runs::monitor::{Progress, Unit};
use oss_runs::run_dir::{RunDir, write_atomic, write_json};
use oss_train::checkpoint::Checkpoint;
use oss_train::distributed::World;
use oss_train::generation::{self, SampledText};
use oss_train::libtorch_error::catch_torch_panic;
use oss_train::model::{Chain, matmul_kind};
use oss_train::train::{configure_torch, device};

/// Storage dtype of the weights for sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Weights {
    /// The precision of matrix products in training (`train.precision`)
    #[default]
    AsTrained,
    /// 32-bit floating point
    F32,
    /// bfloat16
    Bf16,
    /// 8-bit integers with one scale per row, CPU only; activations as in training
    Int8,
}

impl Weights {
    /// Dtype of the activations.
    fn kind(self, precision: Precision) -> Kind {
        match self {
            Self::AsTrained | Self::Int8 => matmul_kind(precision),
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// Inputs of sampling.
pub struct Inputs<'a> {
    /// The experiment, with `model.vocab_size` set.
    pub experiment: &'a Experiment,
    /// The ranks that share the work, including this one.
    pub world: &'a World,
    /// Prompts and sampling parameters.
    pub settings: &'a Sample,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// Their storage dtype.
    pub weights: Weights,
    /// The tokenizer of the training text.
    pub tokenizer: &'a Tokenizer,
}

/// The samples, as printed by `--json` and stored in `samples/final.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// The samples of all prompts, in order.
    pub samples: Vec<SampledText>,
    /// Decoding time: all generated tokens except the first of each sequence, without loading, tokenization and
    /// prefill. Not stored, so that identical samples give identical files.
    #[serde(skip)]
    pub decoding: Duration,
}

/// Samples continuations of every prompt.
///
/// # Errors
/// The tokenizer rejects a prompt, the checkpoint is corrupted, or stopped on request.
pub fn sample(inputs: Inputs<'_>) -> Result<Samples> {
    let Inputs { experiment, world, settings, mut checkpoint, weights, tokenizer } = inputs;
    configure_torch(&experiment.train, experiment.run.deterministic, world.local_size())?;
    let kind = weights.kind(experiment.train.precision);
    let device = device(&experiment.train, world.local_rank())?;
    let progress = Progress::new("sample", Some(settings.max_new_tokens), Unit::Tokens);
    let mut first = None;
    let mut decoding = Duration::ZERO;
    let samples = catch_torch_panic(|| {
        let mesh = world.mesh(&experiment.sharding, device)?;
        let mut shards = super::load_weights(world, &mesh, &experiment.model, &mut checkpoint, kind)?;
        if weights == Weights::Int8 {
            shards = shards.in_int8(&experiment.model)?;
        }
        let chain = Chain { model: &experiment.model, weights: &shards, kind };
        generation::sample(&chain, &mesh, tokenizer, settings, |added| {
            progress.set_position(added);
            decoding = first.get_or_insert_with(Instant::now).elapsed();
            mesh.check_interrupt()
        })
    })?;
    Ok(Samples { samples, decoding })
}

impl Samples {
    /// Writes the final samples of `run` as JSON and as text; returns both paths.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write(&self, run: &RunDir) -> Result<[PathBuf; 2]> {
        let json = run.final_samples();
        let text = json.with_extension("txt");
        write_json(&json, self).with_context(|| format!("cannot write {}", json.display()))?;
        let shown = self.to_text();
        write_atomic(&text, |out| out.write_all(shown.as_bytes()))
            .with_context(|| format!("cannot write {}", text.display()))?;
        Ok([json, text])
    }

    /// Prompt and continuation of each sample, separated by lines of dashes.
    pub fn to_text(&self) -> String {
        let shown: Vec<String> =
            self.samples.iter().map(|sample| format!("{}{}\n", sample.prompt, sample.text)).collect();
        shown.join("----\n")
    }
}
