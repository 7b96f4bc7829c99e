//! Parsed TOML in which every key and value knows its location.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::errors::Problem;

/// A text that values came from.
#[derive(Debug)]
pub(super) struct Source {
    pub kind: SourceKind,
    pub text: String,
    /// Its position in the list of problems.
    pub order: usize,
}

/// The kind of a source.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SourceKind {
    File(PathBuf),
    /// `NAME=value`.
    Environment {
        variable: String,
    },
    /// The value of this command-line argument.
    Argument(&'static str),
}

impl Source {
    /// The source's name, as shown before a line and column.
    pub fn name(&self) -> String {
        match &self.kind {
            SourceKind::File(path) => path.display().to_string(),
            SourceKind::Environment { variable } => format!("environment variable {variable}"),
            SourceKind::Argument(name) => format!("{name} {}", self.text),
        }
    }
}

/// A range of bytes in a source.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub source: Arc<Source>,
    pub span: Range<usize>,
}

impl Place {
    /// Line and column (in characters), both 1-based.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = self.source.text.get(..self.span.start).unwrap_or(&self.source.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A value, its location and the location of its key (for a list item, the location of the item).
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub key: Place,
    pub place: Place,
    pub data: Data,
}

pub(super) type Table = BTreeMap<String, Node>;

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Table(Table),
    List(Vec<Node>),
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    Datetime,
}

impl Data {
    /// The type of the value, with its article.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Datetime => "a date",
        }
    }
}

/// Parses a whole file; every syntax error becomes a problem.
pub(super) fn parse_file(source: &Arc<Source>, problems: &mut Vec<Problem>) -> Table {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    problems.extend(errors.iter().map(|error| syntax_problem(error, source, 0)));
    table(document.get_ref(), source, 0)
}

/// Parses one value at byte `offset` of its source.
pub(super) fn parse_value(text: &str, source: &Arc<Source>, offset: usize) -> Result<(Place, Data), Problem> {
    let value = DeValue::parse(text).map_err(|error| syntax_problem(&error, source, offset))?;
    Ok((place(value.span(), source, offset), data(value.get_ref(), source, offset)))
}

/// Parses a dotted key at the start of its source, and returns its parts with their locations.
pub(super) fn parse_key(text: &str, source: &Arc<Source>) -> Result<Vec<(String, Place)>, Problem> {
    let line = format!("{text} = 0");
    let no_key = || {
        let place = place(0..text.len(), source, 0);
        Problem::new(format!("`{text}` is not a key"), place)
            .help("write it with dots, such as `train.steps`")
    };
    let document = DeTable::parse(&line).map_err(|_| no_key())?;
    let mut parts = Vec::new();
    let mut table = document.get_ref();
    while let Some((key, value)) = table.iter().next() {
        parts.push((key.get_ref().to_string(), place(key.span(), source, 0)));
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    // A comment parses but contains no key.
    if parts.is_empty() { Err(no_key()) } else { Ok(parts) }
}

/// The node at a path such as `dataset.source[1].weight`.
pub(super) fn find<'a>(root: &'a Table, path: &str) -> Option<&'a Node> {
    let mut parts = path.split('.');
    let mut node = step(root, parts.next()?)?;
    for part in parts {
        match &node.data {
            Data::Table(table) => node = step(table, part)?,
            _ => return None,
        }
    }
    Some(node)
}

fn step<'a>(table: &'a Table, part: &str) -> Option<&'a Node> {
    let (name, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
        Some((name, index)) => (name, Some(index.parse::<usize>().ok()?)),
        None => (part, None),
    };
    let node = table.get(name)?;
    match (index, &node.data) {
        (None, _) => Some(node),
        (Some(index), Data::List(items)) => items.get(index),
        (Some(_), _) => None,
    }
}

/// The node at a chain of keys.
pub(super) fn find_keys<'a>(root: &'a Table, keys: &[&str]) -> Option<&'a Node> {
    let (first, rest) = keys.split_first()?;
    let node = root.get(*first)?;
    match &node.data {
        _ if rest.is_empty() => Some(node),
        Data::Table(inner) => find_keys(inner, rest),
        _ => None,
    }
}

/// Removes the value at `path` from the tables.
pub(super) fn remove(root: &mut Table, path: &[String]) -> Option<Node> {
    match path {
        [] => None,
        [last] => root.remove(last),
        [first, rest @ ..] => match &mut root.get_mut(first)?.data {
            Data::Table(inner) => remove(inner, rest),
            _ => None,
        },
    }
}

/// A file source with the path as the user gave it.
pub(super) fn file_source(path: &Path, text: String, order: usize) -> Arc<Source> {
    Arc::new(Source { kind: SourceKind::File(path.to_owned()), text, order })
}

fn syntax_problem(error: &toml::de::Error, source: &Arc<Source>, offset: usize) -> Problem {
    let end = source.text.len();
    let span = error.span().unwrap_or(end..end);
    let span = (span.start + offset).min(end)..(span.end + offset).min(end);
    Problem::new(error.message().trim().to_owned(), Place { source: Arc::clone(source), span }).label("here")
}

fn table(table: &DeTable<'_>, source: &Arc<Source>, offset: usize) -> Table {
    let node = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| Node {
        key: place(key.span(), source, offset),
        place: place(value.span(), source, offset),
        data: data(value.get_ref(), source, offset),
    };
    table.iter().map(|(key, value)| (key.get_ref().to_string(), node((key, value)))).collect()
}

fn data(value: &DeValue<'_>, source: &Arc<Source>, offset: usize) -> Data {
    match value {
        DeValue::String(text) => Data::Text(text.to_string()),
        // The parser has validated the digits; a number beyond 128 bits fits no field anyway, so it saturates.
        DeValue::Integer(digits) => {
            let saturated = if digits.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
            Data::Integer(i128::from_str_radix(digits.as_str(), digits.radix()).unwrap_or(saturated))
        }
        DeValue::Float(digits) => Data::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Data::Bool(*value),
        DeValue::Datetime(_) => Data::Datetime,
        DeValue::Array(items) => {
            let node = |item: &Spanned<DeValue<'_>>| {
                let place = place(item.span(), source, offset);
                Node { key: place.clone(), place, data: data(item.get_ref(), source, offset) }
            };
            Data::List(items.iter().map(node).collect())
        }
        DeValue::Table(inner) => Data::Table(table(inner, source, offset)),
    }
}

fn place(span: Range<usize>, source: &Arc<Source>, offset: usize) -> Place {
    Place { source: Arc::clone(source), span: span.start + offset..span.end + offset }
}
