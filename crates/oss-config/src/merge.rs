//! Merges layers: what a stronger layer replaces, presets, and figment's merge with its record of origins.

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::Serialized,
    value::{Dict, Map, Tag, Value},
};

use super::{
    Experiment, Preset,
    document::{Data, Node, Table, find, find_keys},
    errors::Problem,
    layers::Layer,
    provenance::SetBy,
    shape::{self, Field, Shape},
};

/// The merged values, each tagged with the layer that set it.
pub(super) struct Merged {
    figment: Figment,
    layers: Vec<Layer>,
    presets: Vec<(String, SetBy)>,
}

/// Merges layers given weakest first.
pub(super) fn merge(mut layers: Vec<Layer>) -> Merged {
    make_unique(&mut layers);
    for strong in 1..layers.len() {
        let (weaker, stronger) = layers.split_at_mut(strong);
        replace(weaker, &stronger[0].root);
    }
    let defaults = Serialized::defaults(Experiment::default());
    let mut figment = Figment::new().merge(defaults);
    let mut presets = Vec::new();
    for layer in &layers {
        if let Some((preset, node)) = preset(&layer.root) {
            let name = format!("preset of {}", layer.name);
            let named = Box::new(SetBy::of(&node.place));
            presets.push((name.clone(), SetBy::Preset { name: preset.name().into(), named }));
            figment = figment.merge(Provided { name, values: shape_of(preset) });
        }
        figment = figment.merge(Provided { name: layer.name.clone(), values: dict(&layer.root) });
    }
    Merged { figment, layers, presets }
}

impl Merged {
    /// The merged top-level table; its values carry the tags of their layers.
    pub fn values(&self) -> Result<Dict, Problem> {
        let Shape::Table(sections) = shape::experiment() else { return Ok(Dict::new()) };
        let section = |field: &Field| {
            let value = self.figment.find_value(&field.name).map_err(|error| problem(&error))?;
            Ok((field.name.clone(), value))
        };
        sections.iter().map(section).collect()
    }

    /// The origin of the value with `tag` at `keys`.
    pub fn set_by(&self, tag: Tag, keys: &[&str]) -> SetBy {
        let Some(metadata) = self.figment.get_metadata(tag) else { return SetBy::Default };
        if let Some((_, set_by)) = self.presets.iter().find(|(name, _)| *name == metadata.name) {
            return set_by.clone();
        }
        let layer = self.layers.iter().find(|layer| layer.name == metadata.name);
        layer
            .and_then(|layer| find_keys(&layer.root, keys))
            .map_or(SetBy::Default, |node| SetBy::of(&node.place))
    }

    /// The strongest layer's node at `path`.
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.layers.iter().rev().find_map(|layer| find(&layer.root, path))
    }
}

/// Anything serde still rejects has figment's wording; the earlier checks are meant to catch everything.
pub(super) fn problem(error: &figment::Error) -> Problem {
    Problem::without_place(format!("`{}`: {}", error.path.join("."), error.kind))
}

/// Names identify layers, and a file may be named like a layer that is not a file, such as `environment`.
fn make_unique(layers: &mut [Layer]) {
    for index in 1..layers.len() {
        let copies = layers[..index].iter().filter(|layer| layer.name == layers[index].name).count();
        if copies > 0 {
            layers[index].name.push_str(&format!(" (again, {copies})"));
        }
    }
}

/// Keys that exclude each other across layers: a stronger layer that sets one removes the others.
const ORIGINS: [&str; 4] = ["builtin", "files", "hub", "source"];
const VALIDATIONS: [&str; 4] = ["builtin", "files", "hub", "fraction"];
/// The length of training.
const LENGTHS: [&str; 2] = ["steps", "epochs"];
/// Keys of `[model]` that are not part of a preset, and so survive a stronger layer's preset.
const NO_SHAPE: [&str; 2] = ["init_from", "vocab_size"];

fn replace(weaker: &mut [Layer], stronger: &Table) {
    replace_in(&["dataset"], &ORIGINS, weaker, stronger);
    replace_in(&["dataset", "validation"], &VALIDATIONS, weaker, stronger);
    replace_in(&["train"], &LENGTHS, weaker, stronger);
    if preset(stronger).is_some() {
        for layer in weaker.iter_mut() {
            if let Some(model) = at_mut(&mut layer.root, &["model"]) {
                model.retain(|key, _| NO_SHAPE.contains(&key.as_str()));
            }
        }
    }
}

/// Removes from the table at `path` of weaker layers those of `keys` that the stronger one does not set, if it sets any.
fn replace_in(path: &[&str], keys: &[&'static str], weaker: &mut [Layer], stronger: &Table) {
    let Some(named) = at(stronger, path).and_then(|table| names(table, keys)) else { return };
    for layer in weaker {
        if let Some(table) = at_mut(&mut layer.root, path) {
            table.retain(|key, _| !keys.contains(&key.as_str()) || named.contains(&key.as_str()));
        }
    }
}

/// Which of `keys` the table has.
fn names(table: &Table, keys: &[&'static str]) -> Option<Vec<&'static str>> {
    let named: Vec<_> = keys.iter().copied().filter(|key| table.contains_key(*key)).collect();
    (!named.is_empty()).then_some(named)
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Table> {
    path.iter().try_fold(table, |table, key| match &table.get(*key)?.data {
        Data::Table(inner) => Some(inner),
        _ => None,
    })
}

fn at_mut<'a>(table: &'a mut Table, path: &[&str]) -> Option<&'a mut Table> {
    path.iter().try_fold(table, |table, key| match &mut table.get_mut(*key)?.data {
        Data::Table(inner) => Some(inner),
        _ => None,
    })
}

fn preset(root: &Table) -> Option<(Preset, &Node)> {
    let node = at(root, &["model"])?.get("preset")?;
    match &node.data {
        Data::Text(name) => Some((Preset::named(name)?, node)),
        _ => None,
    }
}

/// The fields that a preset sets, as if they had been written in the layer that names it.
fn shape_of(preset: Preset) -> Dict {
    let model = Value::serialize(preset.model()).ok().and_then(Value::into_dict).unwrap_or_default();
    Dict::from([("model".to_owned(), Value::from(model))])
}

/// A layer in figment's form.
struct Provided {
    name: String,
    values: Dict,
}

impl Provider for Provided {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn dict(table: &Table) -> Dict {
    table.iter().filter_map(|(name, node)| Some((name.clone(), value(&node.data)?))).collect()
}

fn value(data: &Data) -> Option<Value> {
    Some(match data {
        Data::Table(table) => Value::from(dict(table)),
        Data::List(items) => {
            Value::from(items.iter().filter_map(|item| value(&item.data)).collect::<Vec<_>>())
        }
        Data::Text(text) => Value::from(text.as_str()),
        Data::Integer(integer) => Value::from(i64::try_from(*integer).ok()?),
        Data::Float(float) => Value::from(*float),
        Data::Bool(boolean) => Value::from(*boolean),
        // No key takes a date; such a value has already been reported and removed.
        Data::Datetime => return None,
    })
}
