//! `oss-run sample`: a run's weights continue a text.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::output::{print, print_json};
use super::ranks::{Task, on_ranks};
use crate::runner::trained::Trained;
use crate::stages::sample::Weights;
use oss_config::Sample;
use oss_config::error::UserError;
use oss_runs::run_dir::RunsDir;

/// What it takes; what is not given is as in the run's `[sample]`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// The checkpoint; the newest unless given
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Ranks that share the weights; as many as trained them unless given
    #[arg(long, value_name = "N")]
    ranks: Option<u64>,
    /// Text to continue; may be given several times
    #[arg(long, value_name = "TEXT", required = true)]
    prompt: Vec<String>,
    /// Tokens to add at most
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<u64>,
    /// Divides the logits; 0 takes the likeliest token
    #[arg(long, value_name = "T", conflicts_with = "greedy")]
    temperature: Option<f64>,
    /// Draw among the K likeliest tokens
    #[arg(long, value_name = "K", conflicts_with = "greedy")]
    top_k: Option<u64>,
    /// Draw among the likeliest tokens that make up the share P
    #[arg(long, value_name = "P", conflicts_with = "greedy")]
    top_p: Option<f64>,
    /// Take the likeliest token each time
    #[arg(long)]
    greedy: bool,
    /// Seed of the draws
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Numbers in which the weights are held
    #[arg(long, value_enum, value_name = "NUMBERS", default_value_t)]
    weights: Weights,
    /// Samples of each prompt
    #[arg(long, value_name = "N")]
    num_samples: Option<u64>,
    /// Print prompts, tokens, texts and what decoding took as one JSON document
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The run's own settings with what was given on the command line.
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
            return wrong("nothing would be sampled", "set --max-new-tokens and --num-samples to 1 or more");
        }
        if !(settings.temperature >= 0.0 && settings.temperature.is_finite()) {
            return wrong("--temperature is below 0 or no number", "use 0 (greedy) or more");
        }
        if settings.top_k == Some(0) {
            return wrong("--top-k 0 leaves no token to draw", "use 1 or more");
        }
        if settings.top_p.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return wrong("--top-p is no share", "use a number above 0, up to 1");
        }
        Ok(settings)
    }
}

/// Samples and prints; the run stays as it is.
pub fn sample(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let mut trained = Trained::open(&runs.resolve(&arguments.run)?, arguments.step)?;
    if let Some(ranks) = arguments.ranks {
        trained.share_among(ranks);
    }
    let settings = arguments.settings(&trained.experiment().sample)?;
    let experiment = trained.experiment().clone();
    // A run that trains may have a newer checkpoint by the time another rank looks.
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
