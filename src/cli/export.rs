//! `oss-run export`: write a run's weights as a model directory.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::DeserializeOwned;

use super::completions;
use super::output::{print, print_json};
use crate::runner::loaded_run::Trained;
use oss_config::error::UserError;
use oss_config::{CheckpointChoice, Export, ExportDtype, ExportFormat, parse_bytes};
use oss_runs::run_dir::RunsDir;

/// Arguments of `oss-run export`; options left out come from the run's `[export]`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: a path, an id (or a unique prefix), a name, name/id, or `last`
    #[arg(add = completions::runs())]
    run: String,
    /// Step of the checkpoint [default: the run's export.checkpoint]
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Output format
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["hf"]).try_map(spelled::<ExportFormat>))]
    format: Option<ExportFormat>,
    /// Dtype of the weights
    #[arg(long, value_name = "DTYPE", value_parser = PossibleValuesParser::new(["bf16", "f32", "f16"]).try_map(spelled::<ExportDtype>))]
    dtype: Option<ExportDtype>,
    /// Maximum size of a weight file, such as 5GB
    #[arg(long, value_name = "SIZE")]
    max_shard_size: Option<String>,
    /// Output directory [default: export in the run directory]
    #[arg(long, value_name = "DIR")]
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
        settings.format = self.format.unwrap_or(own.format);
        settings.dtype = self.dtype.unwrap_or(own.dtype);
        if let Some(size) = &self.max_shard_size {
            if parse_bytes(size).is_none() {
                return Err(UserError::wrong(format!("invalid size `{size}` for --max-shard-size"))
                    .hint("write a size such as 5GB or 512MiB"));
            }
            settings.max_shard_size.clone_from(size);
        }
        Ok(settings)
    }
}

/// Parses a value as it is spelled in the experiment file.
fn spelled<T: DeserializeOwned>(text: String) -> serde_json::Result<T> {
    serde_json::from_value(text.into())
}

/// Exports the weights and prints the directory. Without `--out`, replaces the run's own export.
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
