//! Reading a directory of gpt-oss weights.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tch::Tensor;

use super::assemble;
use super::config::{self, Dialect};
use super::layout::{self, Recipe};
use super::shards::Shards;
use crate::model::{Parameter, WeightSource, check_range};
use oss_config::Model;
use oss_config::error::Hint;
use oss_runs::storage::refuse_lfs_pointer;

/// File name of the configuration.
pub(super) const CONFIG: &str = "config.json";

/// A directory of gpt-oss weights, open for reading.
///
/// Opening checks that every tensor is present and that its shape and dtype match the configuration. Reading loads only
/// the requested range of a parameter, one expert at a time if it is stored in another order.
#[derive(Debug)]
pub struct HfDirectory {
    path: PathBuf,
    model: Model,
    shards: Shards,
    recipes: HashMap<Parameter, (Vec<i64>, Recipe)>,
}

impl HfDirectory {
    /// Opens a directory. The error lists every tensor that is missing, unexpected or of the wrong shape or dtype.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_here(path).with_context(|| format!("cannot read the model in {}", path.display()))
    }

    fn open_here(path: &Path) -> Result<Self> {
        let (model, dialect) = parse_config(path)?;
        let shards = Shards::open(path, dialect == Dialect::OpenAi)?;
        let recipes = choose(&model, dialect, &shards)?;
        Ok(Self { path: path.to_owned(), model, shards, recipes })
    }

    /// The architecture, including the vocabulary size.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All files that the architecture and the weights are read from: the configuration first, then the weight files.
    pub fn files(&self) -> Vec<PathBuf> {
        let weights = self.shards.files().iter().map(|file| file.path().to_owned());
        [self.path.join(CONFIG)].into_iter().chain(weights).collect()
    }

    fn recipe(&self, parameter: Parameter) -> Result<&(Vec<i64>, Recipe)> {
        let missing = || format!("{} has no parameter {}", self.path.display(), parameter.name());
        self.recipes.get(&parameter).with_context(missing)
    }
}

impl WeightSource for HfDirectory {
    fn load(&mut self, parameter: Parameter) -> Result<Tensor> {
        let shape = self.shape(parameter)?;
        Ok(self.read(parameter, 0..shape.iter().product())?.reshape(shape))
    }

    fn read(&mut self, parameter: Parameter, range: Range<i64>) -> Result<Tensor> {
        let (shape, recipe) = self.recipe(parameter)?;
        check_range(parameter, shape, &range)?;
        assemble::read(&self.shards, shape, recipe, range)
            .with_context(|| format!("cannot load {} from {}", parameter.name(), self.path.display()))
    }

    fn shape(&mut self, parameter: Parameter) -> Result<Vec<i64>> {
        Ok(self.recipe(parameter)?.0.clone())
    }
}

/// The architecture that the configuration in `directory` describes, including the vocabulary size; its weights need not be
/// there.
///
/// # Errors
/// The file is missing, or does not describe a gpt-oss model.
pub fn read_config(directory: &Path) -> Result<Model> {
    let context = || format!("cannot read the model in {}", directory.display());
    parse_config(directory).map(|(model, _)| model).with_context(context)
}

fn parse_config(directory: &Path) -> Result<(Model, Dialect)> {
    let path = directory.join(CONFIG);
    refuse_lfs_pointer(&path)?;
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{}", path.display()))
        .with_hint(|| format!("specify a directory with {CONFIG} and safetensors files"))?;
    serde_json::from_str(&text)
        .map_err(anyhow::Error::from)
        .and_then(|config| config::parse(&config))
        .with_context(|| format!("invalid {CONFIG}"))
}

/// Chooses each parameter's recipe by what is stored, and lists every mismatch in the error.
fn choose(
    model: &Model,
    dialect: Dialect,
    shards: &Shards,
) -> Result<HashMap<Parameter, (Vec<i64>, Recipe)>> {
    let mut problems = Vec::new();
    let mut chosen = HashMap::new();
    let mut unused = shards.names();
    for (spec, recipes) in layout::recipes(model, dialect) {
        let is_there =
            |recipe: &&Recipe| recipe.stored().iter().any(|stored| shards.info(&stored.name).is_some());
        let Some(recipe) = recipes.iter().find(is_there) else {
            problems.push(match recipes.first() {
                Some(recipe) => format!("{} is missing", recipe.stored()[0].name),
                None => format!("{} cannot be stored in this layout", spec.name),
            });
            continue;
        };
        for stored in recipe.stored() {
            unused.remove(&stored.name);
            let Some(info) = shards.info(&stored.name) else {
                problems.push(format!("{} is missing", stored.name));
                continue;
            };
            if !info.shape.iter().map(|n| *n as i64).eq(stored.shape.iter().copied()) {
                let wanted = &stored.shape;
                problems.push(format!("{} has shape {:?}, not {wanted:?}", stored.name, info.shape));
            }
            if !stored.content.allows(info.dtype) {
                problems.push(format!("{} has unsupported dtype {}", stored.name, info.dtype));
            }
        }
        chosen.insert(spec.parameter, (spec.shape, recipe.clone()));
    }
    problems.extend(unused.into_iter().map(|name| format!("{name} is not part of the model")));
    if problems.is_empty() {
        return Ok(chosen);
    }
    bail!("the weights do not match {CONFIG}:\n  {}", problems.join("\n  "))
}
