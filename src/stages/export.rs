//! The export stage: writes the weights as a directory that transformers can load.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use oss_config::error::Hint;
use oss_config::{Experiment, Export, ExportFormat, parse_bytes};
use oss_data::Tokenizer;
use oss_runs::run_dir::OutputFile;
use oss_train::checkpoint::Checkpoint;
use oss_train::hf_format::{self, ExportOptions, TokenizerFiles};
use oss_train::libtorch_error::catch_torch_panic;

/// Inputs of an export.
pub struct Inputs<'a> {
    /// The experiment, with `model.vocab_size` set.
    pub experiment: &'a Experiment,
    /// Format, dtype and file sizes.
    pub settings: &'a Export,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// The tokenizer of the training text.
    pub tokenizer: &'a Tokenizer,
    /// The directory to write.
    pub out: PathBuf,
}

/// Writes the directory; an earlier export is kept until the new one is complete. The returned paths are relative to
/// `root`.
///
/// # Errors
/// The disk is full, the directory contains other files, the checkpoint is corrupted, or stopped on request.
pub fn export(inputs: Inputs<'_>, root: &Path) -> Result<Vec<OutputFile>> {
    let Inputs { experiment, settings, mut checkpoint, tokenizer, out } = inputs;
    let ExportFormat::Hf = settings.format;
    let max_shard_bytes = parse_bytes(&settings.max_shard_size)
        .with_context(|| format!("invalid size {:?} for export.max_shard_size", settings.max_shard_size))
        .hint("write a size such as 5GB or 512MiB")?;
    let options = ExportOptions { dtype: settings.dtype, max_shard_bytes };
    let ids = tokenizer.special_ids();
    let files = TokenizerFiles {
        tokenizer_json: tokenizer.hugging_face_json(),
        tokenizer_config: tokenizer.tokenizer_config(experiment.model.max_position_embeddings),
        bos_token_id: ids.begin,
        eos_token_ids: ids.end,
        pad_token_id: Some(ids.pad),
    };
    let written =
        catch_torch_panic(|| hf_format::export(&out, &experiment.model, &mut checkpoint, &files, &options))?;
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
