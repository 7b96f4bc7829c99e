//! Exporting a model as a Hugging Face directory, with one tensor in memory at a time.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{
    CONFIG, config,
    shards::{INDEX, SINGLE},
};
use crate::model::{Parameter, ParameterSpec, WeightSource, parameters};
use crate::tensor_file::{FileRecord, Planned, TensorFileWriter, header, kind_of};
use oss_config::error::UserError;
use oss_config::{ExportDtype, Model};
use oss_runs::interrupt;
use oss_runs::monitor::{Progress, Unit};
use oss_runs::run_dir;
use oss_runs::storage::{Disk, StagedDir, clear_leftovers};

/// File that lists the exported files with their digests. It marks the directory as an export, which a later one may
/// replace.
const RECORD: &str = "export.json";
/// Incremented when the meaning of the record changes.
const RECORD_FORMAT: u64 = 1;
/// Disk space reserved for everything other than the weights and `tokenizer.json`.
const SLACK_BYTES: u64 = 4 << 20;

/// The tokenizer's part of an export.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// Contents of `tokenizer.json`.
    pub tokenizer_json: String,
    /// Contents of `tokenizer_config.json`.
    pub tokenizer_config: Value,
    /// Token that starts a text, if there is one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end generation, the default one first.
    pub eos_token_ids: Vec<u32>,
    /// Token that pads batches, if there is one.
    pub pad_token_id: Option<u32>,
}

/// How the weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Dtype of the weights.
    pub dtype: ExportDtype,
    /// Maximum size of a weight file in bytes; a larger tensor gets its own file.
    pub max_shard_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u64,
    files: Vec<FileRecord>,
}

/// Writes `source`'s weights, `config.json`, `generation_config.json` and the tokenizer to the directory `out`, which
/// transformers can load, and returns the files with their digests.
///
/// Everything is written next to `out` and moved there at the end; until then, an earlier export stays in place. A
/// directory with any other files is refused. `model.vocab_size` must be set. If a stop is requested, the export ends
/// between two tensors with [`Stopped`](oss_config::error::Stopped).
pub fn export(
    out: &Path,
    model: &Model,
    source: &mut dyn WeightSource,
    tokenizer: &TokenizerFiles,
    options: &ExportOptions,
) -> Result<Vec<FileRecord>> {
    export_here(out, model, source, tokenizer, options)
        .with_context(|| format!("cannot export to {}", out.display()))
}

fn export_here(
    out: &Path,
    model: &Model,
    source: &mut dyn WeightSource,
    tokenizer: &TokenizerFiles,
    options: &ExportOptions,
) -> Result<Vec<FileRecord>> {
    check_special_tokens(model, tokenizer)?;
    let shards = plan_shards(model, options);
    let out = prepare_destination(out)?;
    check_room(&out, &shards, tokenizer)?;

    let disk = Disk::default();
    let staged = StagedDir::create(&disk, &out)
        .with_context(|| format!("cannot create a temporary directory next to {}", out.display()))?;
    let mut files = write_weights(&disk, staged.path(), &shards, source)?;
    let dtype_name = match options.dtype {
        ExportDtype::Bf16 => "bfloat16",
        ExportDtype::F32 => "float32",
        ExportDtype::F16 => "float16",
    };
    let mut texts = vec![
        (CONFIG, pretty(&config::to_json(model, dtype_name, tokenizer))),
        ("generation_config.json", pretty(&config::generation_json(tokenizer))),
        ("tokenizer.json", tokenizer.tokenizer_json.clone()),
        ("tokenizer_config.json", pretty(&tokenizer.tokenizer_config)),
    ];
    if shards.len() > 1 {
        texts.push((INDEX, pretty(&index(&shards))));
    }
    for (name, text) in texts {
        files.push(write_text(&disk, staged.path(), name, &text)?);
    }
    let record = serde_json::to_value(Record { format: RECORD_FORMAT, files: files.clone() })?;
    write_text(&disk, staged.path(), RECORD, &pretty(&record))?;
    staged.commit().context("cannot move the finished export into place")?;
    Ok(files)
}

fn check_special_tokens(model: &Model, tokenizer: &TokenizerFiles) -> Result<()> {
    let vocab_size = model.vocab_size.context("the model's vocab_size is not set")?;
    let ids = tokenizer.eos_token_ids.iter().chain(&tokenizer.bos_token_id).chain(&tokenizer.pad_token_id);
    match ids.copied().find(|id| i64::from(*id) >= vocab_size) {
        Some(id) => bail!(
            UserError::failed(format!(
                "the tokenizer's special token {id} is outside the model's vocabulary of {vocab_size}"
            ))
            .hint("export with the tokenizer that the model was trained with")
        ),
        None => Ok(()),
    }
}

/// A weight file to be written.
struct Shard {
    name: String,
    tensors: Vec<(Parameter, Planned)>,
}

impl Shard {
    fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, planned)| planned.bytes()).sum()
    }

    fn planned(&self) -> Vec<Planned> {
        self.tensors.iter().map(|(_, planned)| planned.clone()).collect()
    }
}

/// Assigns the parameters to files in the order of the model.
fn plan_shards(model: &Model, options: &ExportOptions) -> Vec<Shard> {
    let dtype = match options.dtype {
        ExportDtype::Bf16 => Dtype::BF16,
        ExportDtype::F32 => Dtype::F32,
        ExportDtype::F16 => Dtype::F16,
    };
    let mut groups: Vec<(u64, Vec<(Parameter, Planned)>)> = Vec::new();
    for ParameterSpec { parameter, name, shape } in parameters(model) {
        let tensor = Planned { name, dtype, shape };
        let bytes = tensor.bytes();
        match groups.last_mut() {
            Some((total, tensors)) if *total + bytes <= options.max_shard_bytes => {
                *total += bytes;
                tensors.push((parameter, tensor));
            }
            _ => groups.push((bytes, vec![(parameter, tensor)])),
        }
    }
    let count = groups.len();
    let name = |i: usize| match count {
        1 => SINGLE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    groups.into_iter().enumerate().map(|(i, (_, tensors))| Shard { name: name(i), tensors }).collect()
}

fn index(shards: &[Shard]) -> Value {
    let total: u64 = shards.iter().map(Shard::data_bytes).sum();
    let places = shards.iter().flat_map(|shard| shard.tensors.iter().map(|(_, t)| (&t.name, &shard.name)));
    let weight_map: BTreeMap<_, _> = places.collect();
    json!({ "metadata": { "total_size": total }, "weight_map": weight_map })
}

/// Resolves the destination, restores an earlier export that a killed process had moved aside, and refuses to replace
/// files that were not written by an export.
fn prepare_destination(out: &Path) -> Result<PathBuf> {
    let out = std::path::absolute(out)?;
    // If `out` is a symbolic link, its target is replaced and the link stays.
    let out = if out.exists() { out.canonicalize()? } else { out };
    let (Some(parent), Some(name)) = (out.parent(), out.file_name().and_then(|name| name.to_str())) else {
        bail!(UserError::failed("not a valid directory name").hint("choose another directory"));
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    clear_leftovers(&Disk::default(), parent, |found| found == name);
    if out.exists() {
        ensure!(out.is_dir(), UserError::failed("not a directory").hint("choose another directory"));
        let foreign = foreign_files(&out)?;
        ensure!(
            foreign.is_empty(),
            UserError::failed(format!(
                "the directory contains files that were not exported ({})",
                foreign.join(", ")
            ))
            .hint("choose another directory")
        );
    }
    Ok(out)
}

/// Names in a directory that are not listed in its record.
fn foreign_files(directory: &Path) -> Result<Vec<String>> {
    let record = fs::read(directory.join(RECORD)).ok();
    let record = record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    let mut foreign = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let listed = record
            .as_ref()
            .is_some_and(|record| name == RECORD || record.files.iter().any(|file| file.name == name));
        if !listed {
            foreign.push(name);
        }
    }
    foreign.sort();
    Ok(foreign)
}

fn check_room(out: &Path, shards: &[Shard], tokenizer: &TokenizerFiles) -> Result<()> {
    let weights: u64 = shards
        .iter()
        .map(|shard| header(&shard_metadata(), &shard.planned()).len() as u64 + shard.data_bytes())
        .sum();
    let needed = weights + tokenizer.tokenizer_json.len() as u64 + SLACK_BYTES;
    let parent = out.parent().unwrap_or(out);
    let free = run_dir::free_bytes(parent)
        .with_context(|| format!("cannot determine the free space in {}", parent.display()))?;
    ensure!(
        free >= needed,
        UserError::failed(format!(
            "not enough disk space: the export needs {}, but only {} are free",
            indicatif::HumanBytes(needed),
            indicatif::HumanBytes(free)
        ))
        .hint("free some space, or export elsewhere with --out")
    );
    Ok(())
}

/// Older versions of transformers refuse files without a `format`.
fn shard_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

fn write_weights(
    disk: &Disk,
    folder: &Path,
    shards: &[Shard],
    source: &mut dyn WeightSource,
) -> Result<Vec<FileRecord>> {
    let total = shards.iter().map(Shard::data_bytes).sum();
    let progress = Progress::new("export", Some(total), Unit::Bytes);
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let path = folder.join(&shard.name);
        let mut writer = TensorFileWriter::create(disk, path, &shard_metadata(), shard.planned())?;
        for (parameter, planned) in &shard.tensors {
            interrupt::check()?;
            let tensor = source.load(*parameter)?;
            writer.write(&converted(&tensor, planned)?)?;
            progress.advance(planned.bytes());
        }
        files.push(writer.finish()?);
    }
    Ok(files)
}

/// The tensor in the dtype of the export.
fn converted(tensor: &Tensor, planned: &Planned) -> Result<Tensor> {
    let name = &planned.name;
    ensure!(tensor.size() == planned.shape, "{name} has shape {:?}, not {:?}", tensor.size(), planned.shape);
    let kind = kind_of(planned.dtype).unwrap_or_else(|| unreachable!("exported dtypes are floats"));
    let converted = tensor.to_kind(kind);
    // f16 is the only dtype with a smaller range than the weights in training.
    if kind == Kind::Half && converted.isinf().any().int64_value(&[]) != 0 {
        bail!(
            UserError::failed(format!("{name} has values outside the range of f16"))
                .hint("set export.dtype to \"bf16\"")
        );
    }
    Ok(converted)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write_text(disk: &Disk, folder: &Path, name: &str, text: &str) -> Result<FileRecord> {
    let path = folder.join(name);
    let write = || {
        let mut file = disk.create_file(&path)?;
        disk.write_all(&mut file, text.as_bytes())?;
        disk.sync_file(&file)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
    Ok(FileRecord { name: name.to_owned(), bytes: text.len() as u64, digest })
}
