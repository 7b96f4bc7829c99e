//! `oss-run export`: a run's weights as a directory for others.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::output::{print, print_json};
use crate::runner::trained::Trained;
use oss_config::error::UserError;
use oss_config::{CheckpointChoice, Export, parse_bytes};
use oss_runs::run_dir::RunsDir;

/// What it takes; what is not given is as in the run's `[export]`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id or the start of one, a name, or `last`
    run: String,
    /// The checkpoint; the run's `export.checkpoint` unless given
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Layout of the directory: hf
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Numbers of the weights: bf16, f32 or f16
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<String>,
    /// Largest weight file, such as 5GB
    #[arg(long, value_name = "SIZE")]
    max_shard_size: Option<String>,
    /// The directory to write
    #[arg(long, value_name = "D")]
    out: Option<PathBuf>,
    /// Print the files as one JSON document
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn settings(&self, own: &Export) -> Result<Export, UserError> {
        let mut settings = own.clone();
        if let Some(step) = self.step {
            settings.checkpoint = CheckpointChoice::Step(step);
        }
        if let Some(format) = &self.format {
            settings.format = named(format, "--format", "hf")?;
        }
        if let Some(dtype) = &self.dtype {
            settings.dtype = named(dtype, "--dtype", "bf16, f32 or f16")?;
        }
        if let Some(size) = &self.max_shard_size {
            if parse_bytes(size).is_none() {
                return Err(UserError::wrong(format!("--max-shard-size {size} is no size"))
                    .hint("write it as 5GB or 512MiB"));
            }
            settings.max_shard_size.clone_from(size);
        }
        Ok(settings)
    }
}

/// A value as the experiment file spells it.
fn named<T: serde::de::DeserializeOwned>(text: &str, option: &str, known: &str) -> Result<T, UserError> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| UserError::wrong(format!("{option} {text} is not known")).hint(format!("use {known}")))
}

/// Exports and prints where to. Without `--out` it takes the place of the run's own export.
pub fn export(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let run = runs.resolve(&arguments.run)?;
    let trained = Trained::for_export(&run, arguments.step)?;
    let settings = arguments.settings(&trained.experiment().export)?;
    let out = arguments.out.clone().unwrap_or_else(|| run.export());
    let out = std::path::absolute(&out).with_context(|| format!("cannot use {}", out.display()))?;
    let files = trained.export(&settings, &out)?;
    if arguments.json {
        return print_json(&serde_json::json!({ "directory": out, "files": files }));
    }
    print(&format!("{}\n", out.display()))
}
