//! Initial weights from a run, a checkpoint, a Hugging Face directory, or the hub.

mod declared;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::hub_pins::{Pins, pin_model};
use super::identity::experiment_of;
use super::inputs::{NetworkAccess, digest_cache};
use super::keys;
use oss_config::Model;
use oss_config::error::UserError;
use oss_data::sources::{Identity, Watch, digest_files};
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};
use oss_train::checkpoint::{self, Checkpoint};
use oss_train::hf_format::HfDirectory;
use oss_train::model::{ParameterSpec, WeightSource, parameters};

/// Initial weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initial {
    place: Place,
    /// Identity of the weights, regardless of location: their digest, or the commit of a hub repository.
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Checkpoint(PathBuf),
    HuggingFace(PathBuf),
    Hub { repo: String, commit: String, files: Vec<String> },
}

/// Files to read from a model repository.
const HUB_FILES: [&str; 3] = ["config.json", "*.safetensors", "*.safetensors.index.json"];

impl Initial {
    /// Resolves `model.init_from`; `None` if that needs a request to the hub and `reach` is local.
    ///
    /// # Errors
    /// It does not exist, or contains no weights.
    pub fn find(named: &str, runs: &RunsDir, reach: NetworkAccess<'_>) -> Result<Option<Self>> {
        let context = || format!("cannot load model.init_from = {named:?}");
        let path = Path::new(named);
        if path.is_dir() {
            return Self::in_directory(path, runs, reach).map(Some).with_context(context);
        }
        match runs.resolve(named) {
            Ok(run) => Self::of_run(&run).map(Some).with_context(context),
            Err(_) if named.split('/').count() == 2 && !named.starts_with(['/', '.', '~']) => {
                Self::on_the_hub(named, runs, reach).with_context(context)
            }
            Err(error) => Err(anyhow::Error::from(error).context(context())),
        }
    }

    /// Their local path; `None` for weights on the hub.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Checkpoint(path) | Place::HuggingFace(path) => Some(path),
            Place::Hub { .. } => None,
        }
    }

    fn in_directory(path: &Path, runs: &RunsDir, reach: NetworkAccess<'_>) -> Result<Self> {
        let run = RunDir::new(path);
        if run.exists() && run.checkpoints().is_dir() {
            return Self::of_run(&run);
        }
        if path.join("config.json").is_file() {
            let files = HfDirectory::open(path)?.files();
            let digests = digest_files(&files, Some(&digest_cache(runs)), reach.watch())?;
            let digest = keys::hash(&serde_json::to_value(&digests)?).0;
            return Ok(Self { place: Place::HuggingFace(path.to_owned()), digest });
        }
        if path.join("manifest.json").is_file() {
            return Self::of_checkpoint(path);
        }
        bail!(
            UserError::failed(format!(
                "{} contains neither a run, nor a checkpoint, nor a config.json",
                path.display()
            ))
            .hint("pass a run, a checkpoint, or a Hugging Face model directory")
        )
    }

    fn of_run(run: &RunDir) -> Result<Self> {
        match checkpoint::list(&run.checkpoints()).last() {
            Some((_, path)) => Self::of_checkpoint(path),
            None => bail!(
                UserError::failed(format!("run {} has no checkpoints yet", run.root().display()))
                    .hint("train it first")
            ),
        }
    }

    fn of_checkpoint(path: &Path) -> Result<Self> {
        let digest = Checkpoint::open(path)?.weights_digest().to_owned();
        Ok(Self { place: Place::Checkpoint(path.to_owned()), digest })
    }

    fn on_the_hub(repo: &str, runs: &RunsDir, reach: NetworkAccess<'_>) -> Result<Option<Self>> {
        let mut pins = Pins::open(runs);
        let named = oss_config::Hub {
            repo: format!("model {repo}"),
            revision: "main".to_owned(),
            files: HUB_FILES.map(str::to_owned).to_vec(),
        };
        let (commit, files) = match (pins.get(&named), reach) {
            (Some(Identity::Hub { commit, files, .. }), _) => (commit, files),
            (_, NetworkAccess::Local(_)) => return Ok(None),
            (_, NetworkAccess::Hub(watch)) => {
                let pinned = pin_model(repo, "main", "config.json", watch)?;
                let listed = pinned.list(watch)?;
                let read = |name: &String| {
                    name == "config.json"
                        || name.ends_with(".safetensors")
                        || name.ends_with(".safetensors.index.json")
                };
                let files: Vec<String> =
                    listed.into_iter().filter(|name| !name.contains('/') && read(name)).collect();
                let commit = pinned.commit().to_owned();
                let identity =
                    Identity::Hub { repo: repo.to_owned(), commit: commit.clone(), files: files.clone() };
                pins.set(&named, identity);
                pins.save()?;
                (commit, files)
            }
        };
        let digest = format!("{repo}@{commit}");
        Ok(Some(Self { place: Place::Hub { repo: repo.to_owned(), commit, files }, digest }))
    }

    /// Checks that the weights match `model`: local ones, or the configuration of those on the hub.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn check(&self, model: &Model, reach: NetworkAccess<'_>) -> Result<()> {
        match &self.place {
            Place::Hub { repo, .. } => match self.shape(reach)? {
                Some(theirs) => refuse_differences(&theirs, model, repo),
                None => Ok(()),
            },
            _ => self.open(model, reach.watch()).map(drop),
        }
    }

    /// Opens the weights for `model`, downloading them first if they are on the hub.
    ///
    /// # Errors
    /// The weights are missing, corrupted, or do not match `model`; the hub is unreachable.
    pub fn open(&self, model: &Model, watch: Watch<'_>) -> Result<Box<dyn WeightSource>> {
        match &self.place {
            Place::Checkpoint(path) => open_checkpoint(path, model),
            Place::HuggingFace(path) => open_directory(path, model),
            Place::Hub { repo, commit, files } => {
                let pinned = pin_model(repo, commit, "config.json", watch)?;
                for file in files {
                    pinned.fetch(file, watch)?;
                }
                open_directory(&pinned.snapshot(), model)
            }
        }
    }
}

fn open_checkpoint(path: &Path, model: &Model) -> Result<Box<dyn WeightSource>> {
    let checkpoint = Checkpoint::open(path)?;
    let other = |spec: &&ParameterSpec| checkpoint.shape(&spec.name) != Some(spec.shape.as_slice());
    if let Some(spec) = parameters(model).iter().find(other) {
        let found = match checkpoint.shape(&spec.name) {
            Some(shape) => format!("{} has shape {shape:?}, not {:?}", spec.name, spec.shape),
            None => format!("{} is missing", spec.name),
        };
        let run = path.parent().and_then(Path::parent).map(RunDir::new);
        let theirs = run.and_then(|run| experiment_of(&Manifest::load(&run).ok()?));
        let fix = match theirs.map(|theirs| differences(&theirs.model, model)) {
            Some(differences) if !differences.is_empty() => fix(&differences),
            _ => "describe the model of the checkpoint's run in [model]".to_owned(),
        };
        bail!(
            UserError::wrong(format!("[model] does not match the weights in {}: {found}", path.display()))
                .hint(fix)
        );
    }
    Ok(Box::new(checkpoint))
}

fn open_directory(path: &Path, model: &Model) -> Result<Box<dyn WeightSource>> {
    let directory = HfDirectory::open(path)?;
    refuse_differences(directory.model(), model, &path.display().to_string())?;
    Ok(Box::new(directory))
}

fn refuse_differences(theirs: &Model, ours: &Model, place: &str) -> Result<()> {
    let differences = differences(theirs, ours);
    ensure!(
        differences.is_empty(),
        UserError::wrong(format!("[model] does not match the weights in {place}")).hint(fix(&differences))
    );
    Ok(())
}

/// What is left out of `[model]` is taken from the weights.
fn fix(differences: &[String]) -> String {
    format!("set {}, or leave out every key of [model] but init_from", differences.join(", "))
}

/// The assignments that would make `[model]` match `theirs`.
fn differences(theirs: &Model, ours: &Model) -> Vec<String> {
    let fields = |model: &Model| match serde_json::to_value(model) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (theirs, ours) = (fields(theirs), fields(ours));
    // Random initialization does not matter for existing weights.
    let ignored = ["preset", "init_from", "initializer_range", "max_position_embeddings", "layer_types"];
    theirs
        .iter()
        .filter(|(name, value)| !ignored.contains(&name.as_str()) && ours.get(*name) != Some(value))
        .map(|(name, value)| format!("model.{name} = {value}"))
        .collect()
}
