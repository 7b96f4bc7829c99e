//! export: some weights as a directory that transformers loads.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use oss_config::error::Hint;
use oss_config::{Experiment, Export, ExportFormat, parse_bytes};
use oss_data::Tokenizer;
use oss_runs::run_dir::OutputFile;
use oss_train::checkpoint::Checkpoint;
use oss_train::hf_format::{self, ExportOptions, TokenizerFiles};
use oss_train::libtorch_error::guard;

/// What an export reads.
pub struct Inputs<'a> {
    /// The experiment, with `model.vocab_size` set.
    pub experiment: &'a Experiment,
    /// Format, numbers and file sizes.
    pub settings: &'a Export,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// The tokenizer of the training text.
    pub tokenizer: &'a Tokenizer,
    /// The directory to write.
    pub out: PathBuf,
}

/// Writes the directory; an earlier export there stays until the new one is complete. The paths returned start at
/// `root`.
///
/// # Errors
/// No room, a directory that holds something else, a damaged checkpoint, a stop on request.
pub fn export(inputs: Inputs<'_>, root: &Path) -> Result<Vec<OutputFile>> {
    let Inputs { experiment, settings, mut checkpoint, tokenizer, out } = inputs;
    let ExportFormat::Hf = settings.format;
    let max_shard_bytes = parse_bytes(&settings.max_shard_size)
        .with_context(|| format!("export.max_shard_size = {:?} is no size", settings.max_shard_size))
        .hint("write it as 5GB or 512MiB")?;
    let options = ExportOptions { dtype: settings.dtype, max_shard_bytes };
    let ids = tokenizer.special_ids();
    let files = TokenizerFiles {
        tokenizer_json: tokenizer.hugging_face_json(),
        tokenizer_config: tokenizer.tokenizer_config(experiment.model.max_position_embeddings),
        bos_token_id: ids.begin,
        eos_token_ids: ids.end,
        pad_token_id: Some(ids.pad),
    };
    let written = guard(|| hf_format::export(&out, &experiment.model, &mut checkpoint, &files, &options))?;
    let folder = out.strip_prefix(root).unwrap_or(&out);
    Ok(written
        .into_iter()
        .map(|file| OutputFile {
            path: folder.join(&file.name).to_string_lossy().into_owned(),
            bytes: file.bytes,
            blake3: file.digest,
        })
        .collect())
}
