//! The layers above the files: `OSS_RUN__SECTION__KEY` variables, `--set` and `--unset`.

use std::{path::Path, sync::Arc};

use super::{
    document::{self, Data, Node, Place, Source, SourceKind, Table},
    errors::Problem,
    key_path::join,
    layers::Layer,
    shape::{self, Shape},
    validate::{Report, takes},
};

/// Changes to an experiment file from the command line and the environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `--set` arguments, `key.path=value`.
    pub set: Vec<String>,
    /// `--unset` arguments: keys to reset to their defaults.
    pub unset: Vec<String>,
    /// Whether to apply `OSS_RUN__SECTION__KEY` variables.
    pub environment: bool,
}

/// Prefix of the environment variables that set keys.
pub const PREFIX: &str = "OSS_RUN__";

/// Problems of overrides are listed after those of files.
const ENVIRONMENT_ORDER: usize = usize::MAX / 4;
const UNSET_ORDER: usize = usize::MAX / 3;
const SET_ORDER: usize = usize::MAX / 2;

/// A dotted key with the locations of its parts.
pub(super) type Key = Vec<(String, Place)>;

/// The layer of the environment; `variables` are (name, value) pairs.
pub(super) fn environment(
    variables: impl Iterator<Item = (String, String)>,
    working_directory: &Path,
    report: &mut Report,
) -> Layer {
    let mut ours: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    ours.sort();
    let mut root = Table::new();
    for (index, (variable, value)) in ours.into_iter().enumerate() {
        let text = format!("{variable}={value}");
        let kind = SourceKind::Environment { variable: variable.clone() };
        let source = Arc::new(Source { kind, text, order: ENVIRONMENT_ORDER + index });
        let mut start = PREFIX.len();
        let mut key = Key::new();
        for part in variable[PREFIX.len()..].split("__") {
            let place = Place { source: Arc::clone(&source), span: start..start + part.len() };
            key.push((part.to_lowercase(), place));
            start += part.len() + 2;
        }
        assign(&mut root, key, &value, variable.len() + 1, &source, report);
    }
    Layer { name: "environment".into(), root: report.conforming(root), base: working_directory.to_owned() }
}

/// The layer of the `--set` arguments; a later argument for the same key wins.
pub(super) fn arguments(set: &[String], working_directory: &Path, report: &mut Report) -> Layer {
    let mut root = Table::new();
    for (index, argument) in set.iter().enumerate() {
        let kind = SourceKind::Argument("--set");
        let source = Arc::new(Source { kind, text: argument.clone(), order: SET_ORDER + index });
        let Some((key, value)) = argument.split_once('=') else {
            let place = Place { span: 0..argument.len(), source };
            report.problems.push(
                Problem::new(format!("`--set {argument}` has no value"), place)
                    .help("write --set key.path=value, such as --set train.steps=100"),
            );
            continue;
        };
        match document::parse_key(key, &source) {
            Ok(parts) => assign(&mut root, parts, value, key.len() + 1, &source, report),
            Err(problem) => report.problems.push(problem),
        }
    }
    Layer { name: "--set".into(), root: report.conforming(root), base: working_directory.to_owned() }
}

/// Removes the keys of the `--unset` arguments from the layers.
pub(super) fn unset(keys: &[String], layers: &mut [Layer], report: &mut Report) {
    for (index, argument) in keys.iter().enumerate() {
        let kind = SourceKind::Argument("--unset");
        let source = Arc::new(Source { kind, text: argument.clone(), order: UNSET_ORDER + index });
        let key = match document::parse_key(argument, &source) {
            Ok(key) => key,
            Err(problem) => {
                report.problems.push(problem);
                continue;
            }
        };
        if let Some(node) = nested(key.clone(), Data::Bool(true)) {
            let mut root = Table::new();
            root.insert(key[0].0.clone(), node);
            if !exists(&root, shape::experiment(), "", report) {
                continue;
            }
        }
        let path: Vec<String> = key.into_iter().map(|(part, _)| part).collect();
        for layer in layers.iter_mut() {
            document::remove(&mut layer.root, &path);
        }
    }
}

/// Whether every key of the tables is known; the first unknown key is reported.
fn exists(table: &Table, shape: &Shape, path: &str, report: &mut Report) -> bool {
    let shape = shape.table();
    table.iter().all(|(name, node)| {
        let inner = match shape {
            Shape::Map(item) => Some(&**item),
            _ => shape.field(name).map(|field| &field.shape),
        };
        match (inner, shape, &node.data) {
            (Some(inner), _, Data::Table(rest)) => exists(rest, inner, &join(path, name), report),
            (Some(_), _, _) => true,
            (None, Shape::Table(fields), _) => {
                report.unknown_key(name, node.key.clone(), fields, path);
                false
            }
            (None, _, _) => {
                let message = format!("`{path}` has no keys");
                report.problems.push(Problem::new(message, node.key.clone()).help(format!("unset `{path}`")));
                false
            }
        }
    })
}

/// Stores `text`, which starts at byte `offset` of its source, under `key`.
fn assign(root: &mut Table, key: Key, text: &str, offset: usize, source: &Arc<Source>, report: &mut Report) {
    let shape = shape::experiment().at(key.iter().map(|(part, _)| part.as_str()));
    let (place, data) = match interpret(text, offset, shape, source) {
        Ok(value) => value,
        Err(problem) => {
            let path = key.iter().fold(String::new(), |path, (part, _)| join(&path, part));
            report.broken.insert(path);
            report.problems.push(problem);
            return;
        }
    };
    put(root, key, place, data);
}

/// Stores a value under a dotted key, creating missing tables.
pub(super) fn put(root: &mut Table, key: Key, place: Place, data: Data) {
    let mut parts = key.into_iter();
    let Some((first, first_place)) = parts.next() else { return };
    insert(root, first, first_place, parts, place, data);
}

fn insert(
    table: &mut Table,
    name: String,
    key: Place,
    mut rest: std::vec::IntoIter<(String, Place)>,
    place: Place,
    data: Data,
) {
    let Some((next, next_key)) = rest.next() else {
        table.insert(name, Node { key, place, data });
        return;
    };
    let empty = || Node { key: key.clone(), place: key.clone(), data: Data::Table(Table::new()) };
    let node = table.entry(name).or_insert_with(empty);
    if !matches!(node.data, Data::Table(_)) {
        *node = empty();
    }
    if let Data::Table(inner) = &mut node.data {
        insert(inner, next, next_key, rest, place, data);
    }
}

/// A chain of tables around a value: the result of parsing `key = value`, without the outermost key.
fn nested(key: Key, innermost: Data) -> Option<Node> {
    let mut parts = key.into_iter().rev();
    let (mut name, place) = parts.next()?;
    let mut node = Node { key: place.clone(), place, data: innermost };
    for (outer, place) in parts {
        let table = Table::from_iter([(name, node)]);
        node = Node { key: place.clone(), place, data: Data::Table(table) };
        name = outer;
    }
    Some(node)
}

/// Interprets `text` as a value for a key of this shape.
///
/// The text is parsed as TOML. If that fails, or gives the wrong type, it becomes a string if the key accepts strings,
/// unless it starts like a list, a table or a quoted string and so was meant as one.
fn interpret(
    text: &str,
    offset: usize,
    shape: Option<&Shape>,
    source: &Arc<Source>,
) -> Result<(Place, Data), Problem> {
    let trimmed = text.trim();
    let offset = offset + (text.len() - text.trim_start().len());
    let place = Place { source: Arc::clone(source), span: offset..offset + trimmed.len() };
    let structured = trimmed.starts_with(['[', '{', '"', '\'']);
    let parsed = document::parse_value(trimmed, source, offset);
    let Some(shape) = shape else {
        // The key is unknown, which is the problem worth reporting.
        return Ok(parsed.unwrap_or((place, Data::Text(trimmed.into()))));
    };
    match parsed {
        Ok((place, data)) if structured || takes(shape, &data) || !shape.takes_text() => Ok((place, data)),
        Err(problem) if structured => {
            Err(problem.help("write it as TOML, such as [\"a.txt\"]; on the command line, quote it with '...' so that the shell keeps the inner quotes"))
        }
        _ if shape.takes_text() => Ok((place, Data::Text(trimmed.into()))),
        // A bare word for a list or a number: report the wrong type.
        _ => Ok((place, Data::Text(trimmed.into()))),
    }
}
