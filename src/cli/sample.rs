//! `oss-run sample`: generate text with a run's weights.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::completions;
use super::output::{print, print_json};
use super::ranks::{Task, on_ranks};
use crate::runner::loaded_run::Trained;
use crate::stages::sample::Weights;
use oss_config::Sample;
use oss_config::error::UserError;
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run sample`; options left out come from the run's `[sample]`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Step of the checkpoint [default: the newest]
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Number of ranks to shard the weights over [default: as in training]
    #[arg(long, value_name = "N")]
    ranks: Option<u64>,
    /// Prompt; may be given several times
    #[arg(long, value_name = "TEXT", required = true)]
    prompt: Vec<String>,
    /// Maximum number of tokens to generate
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<u64>,
    /// Sampling temperature; 0 is greedy
    #[arg(long, value_name = "T", conflicts_with = "greedy")]
    temperature: Option<f64>,
    /// Sample from the K most likely tokens
    #[arg(long, value_name = "K", conflicts_with = "greedy")]
    top_k: Option<u64>,
    /// Sample from the most likely tokens whose probabilities sum to P (nucleus sampling)
    #[arg(long, value_name = "P", conflicts_with = "greedy")]
    top_p: Option<f64>,
    /// Always pick the most likely token
    #[arg(long)]
    greedy: bool,
    /// Random seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Storage dtype of the weights
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t)]
    weights: Weights,
    /// Number of samples per prompt
    #[arg(long, value_name = "N")]
    num_samples: Option<u64>,
    /// Print prompts, tokens, texts and decoding times as one JSON document
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The run's own settings, overridden by the command line.
    fn settings(&self, own: &Sample) -> Result<Sample, UserError> {
        let settings = Sample {
            prompts: self.prompt.clone(),
            max_new_tokens: self.max_new_tokens.unwrap_or(own.max_new_tokens),
            temperature: if self.greedy { 0.0 } else { self.temperature.unwrap_or(own.temperature) },
            top_k: if self.greedy { None } else { self.top_k.or(own.top_k) },
            top_p: if self.greedy { None } else { self.top_p.or(own.top_p) },
            seed: self.seed.unwrap_or(own.seed),
            num_samples: self.num_samples.unwrap_or(own.num_samples),
            ..own.clone()
        };
        let wrong = |what: &'static str, hint: &str| Err(UserError::wrong(what).hint(hint));
        if settings.max_new_tokens == 0 || settings.num_samples == 0 {
            return wrong("nothing to sample", "set --max-new-tokens and --num-samples to 1 or more");
        }
        if !(settings.temperature >= 0.0 && settings.temperature.is_finite()) {
            return wrong("--temperature must be 0 or more", "pass 0 (greedy) or a positive number");
        }
        if settings.top_k == Some(0) {
            return wrong("--top-k 0 leaves no token to sample", "pass 1 or more");
        }
        if settings.top_p.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return wrong("--top-p is not a probability", "pass a number above 0 and at most 1");
        }
        Ok(settings)
    }
}

/// Samples and prints; the run is not modified.
pub fn sample(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let mut trained = Trained::open(&runs.resolve(&arguments.run)?, arguments.step)?;
    if let Some(ranks) = arguments.ranks {
        trained.share_among(ranks);
    }
    let settings = arguments.settings(&trained.experiment().sample)?;
    let experiment = trained.experiment().clone();
    // A run in progress may write a newer checkpoint before another rank looks.
    let same = (arguments, trained.checkpoint_path().to_owned());
    let task = Task { experiment: &experiment, arguments: &same, resumed: None };
    on_ranks(&task, |world| {
        let samples = trained.sample(&settings, arguments.weights, world)?;
        match (world.is_leader(), arguments.json) {
            (false, _) => Ok(()),
            (true, true) => print_json(&json!({
                "samples": samples.samples,
                "decoding_seconds": samples.decoding.as_secs_f64(),
            })),
            (true, false) => print(&samples.to_text()),
        }
    })
}
