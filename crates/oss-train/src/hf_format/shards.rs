//! The safetensors files of a directory as one set of tensors.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use tch::Tensor;

use crate::tensor_file::TensorFile;
use oss_config::error::UserError;
use oss_runs::storage::{is_plain_name, refuse_lfs_pointer};

/// Name of the weight file if there is only one.
pub(super) const SINGLE: &str = "model.safetensors";
/// Name of the index: which shard contains which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Open files, and which of them contains each tensor.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<TensorFile>,
    /// Index into `files`, by tensor name.
    places: HashMap<String, usize>,
}

impl Shards {
    /// Opens the files that the index lists, or else the single file, or else (if `loose`) all safetensors files. An index
    /// beside a single file that it does not list is refused.
    pub(super) fn open(directory: &Path, loose: bool) -> Result<Self> {
        let index_path = directory.join(INDEX);
        if index_path.exists() {
            refuse_lfs_pointer(&index_path)?;
            let text = fs::read_to_string(&index_path).with_context(|| format!("cannot read {INDEX}"))?;
            let index: Index =
                serde_json::from_str(&text).with_context(|| format!("{INDEX} is not a valid index"))?;
            return Self::indexed(directory, &index.weight_map);
        }
        let single = directory.join(SINGLE);
        let paths = match single.exists() {
            true => vec![single],
            false if loose => loose_files(directory)?,
            false => Vec::new(),
        };
        if paths.is_empty() {
            bail!(
                UserError::failed(format!("neither {SINGLE} nor {INDEX} exists"))
                    .hint("convert other formats with transformers' save_pretrained")
            );
        }
        Self::of_files(&paths)
    }

    fn indexed(directory: &Path, weight_map: &BTreeMap<String, String>) -> Result<Self> {
        let names: BTreeSet<&String> = weight_map.values().collect();
        if let Some(name) = names.iter().find(|name| !is_plain_name(name) || !name.ends_with(".safetensors"))
        {
            bail!("{INDEX} lists {name:?}, which is not a safetensors file in this directory");
        }
        let missing: Vec<_> =
            names.iter().filter(|name| !directory.join(name).exists()).map(|name| name.as_str()).collect();
        // Which one is meant cannot be known: transformers loads the single file, other programs follow the index.
        if directory.join(SINGLE).exists() && !names.iter().any(|name| *name == SINGLE) {
            let what = match missing.as_slice() {
                [] => "are both here, with other weight files each".to_owned(),
                missing => format!("are both here, but not what the index lists: {}", missing.join(", ")),
            };
            bail!(UserError::failed(format!("{SINGLE} and {INDEX} {what}")).hint(format!(
                "delete {INDEX} and its files to use {SINGLE}, or delete {SINGLE} to use what the index lists"
            )));
        }
        if !missing.is_empty() {
            bail!(
                UserError::failed(format!("files are missing: {}", missing.join(", ")))
                    .hint("download the directory again")
            );
        }
        let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
        let shards = Self::of_files(&paths)?;
        let mut problems = Vec::new();
        for (tensor, file) in weight_map {
            if shards.file_name(tensor) != Some(file) {
                problems.push(format!("{tensor} is not in {file}"));
            }
        }
        for tensor in shards.places.keys().filter(|tensor| !weight_map.contains_key(*tensor)) {
            problems.push(format!("{tensor} is not in the index"));
        }
        problems.sort();
        if !problems.is_empty() {
            bail!("{INDEX} does not match its files:\n  {}", problems.join("\n  "));
        }
        Ok(shards)
    }

    fn of_files(paths: &[PathBuf]) -> Result<Self> {
        paths.iter().try_for_each(|path| refuse_lfs_pointer(path))?;
        let files = paths.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut places = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.tensors().keys() {
                if let Some(other) = places.insert(name.clone(), i) {
                    let (one, two) = (files[other].path().display(), file.path().display());
                    bail!(
                        UserError::failed(format!("{name} is in both {one} and {two}"))
                            .hint("delete the file that does not belong")
                    );
                }
            }
        }
        Ok(Self { files, places })
    }

    pub(super) fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// Names of all stored tensors.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.places.keys().cloned().collect()
    }

    fn file_name(&self, tensor: &str) -> Option<&str> {
        self.files[*self.places.get(tensor)?].path().file_name()?.to_str()
    }

    /// Shape and dtype of a stored tensor.
    pub(super) fn info(&self, tensor: &str) -> Option<&TensorInfo> {
        self.files[*self.places.get(tensor)?].tensors().get(tensor)
    }

    /// A range of elements of a flattened stored tensor: 1-D, on the CPU.
    pub(super) fn read(&self, tensor: &str, elements: Range<i64>) -> Result<Tensor> {
        let file = self.places.get(tensor).map(|place| &self.files[*place]);
        let found = file.and_then(|file| Some((file, file.tensors().get(tensor)?)));
        let (file, info) = found.with_context(|| format!("{tensor} is not stored"))?;
        Ok(file.read(info, elements.start as usize..elements.end as usize)?)
    }
}

fn loose_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
