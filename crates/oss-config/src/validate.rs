//! Checks what was written against the shapes: unknown keys, wrong types, values out of bounds.

use std::collections::BTreeSet;

use super::{
    document::{Data, Node, Place, Table},
    errors::Problem,
    familiar::{self, Meaning},
    key_path::join,
    shape::{self, Bounds, Field, Shape, listed},
    suggest::nearest,
};

/// The problems found so far, and the keys whose values are therefore unknown.
#[derive(Default)]
pub(super) struct Report {
    pub problems: Vec<Problem>,
    /// Keys that have a problem of their own; checks that need their values are skipped.
    pub broken: BTreeSet<String>,
    /// Whether a layer could not be read at all.
    all_invalid: bool,
}

impl Report {
    /// Whether the value of `key` is unknown because it, a table around it or a key in it has a problem.
    pub fn is_broken(&self, key: &str) -> bool {
        let inside = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.all_invalid || self.broken.iter().any(|broken| inside(broken, key) || inside(key, broken))
    }

    /// Marks every value as unknown.
    pub fn invalidate_all(&mut self) {
        self.all_invalid = true;
    }

    /// Keeps the valid part of a layer's top-level table and reports the rest.
    pub fn conforming(&mut self, root: Table) -> Table {
        let Shape::Table(fields) = shape::experiment() else { return root };
        self.table(root, fields, "")
    }

    /// Keeps the valid part of a `[sweep]` table and reports the rest.
    pub fn conforming_sweep(&mut self, root: Table) -> Table {
        let Shape::Table(fields) = shape::sweep() else { return root };
        self.table(root, fields, "sweep")
    }

    /// Checks one value of the key at `path`.
    pub fn conforming_value(&mut self, node: Node, shape: &Shape, path: &str) -> Option<Node> {
        let before = self.problems.len();
        let right = self.value(node, shape, path);
        for problem in &mut self.problems[before..] {
            problem.help.get_or_insert_with(|| "remove it from the sweep".into());
        }
        right
    }

    /// Reports a key that is not among `fields`, the keys of the table at `path`.
    pub fn unknown_key(&mut self, name: &str, place: Place, fields: &[Field], path: &str) {
        self.broken.insert(join(path, name));
        let message = match path {
            "" => format!("unknown key `{name}`"),
            _ => format!("unknown key `{name}` in [{path}]"),
        };
        let mut suggestions = Vec::new();
        let mut meaning = familiar(name, fields, path);
        if meaning.is_none() {
            suggestions = self::suggestions(name, fields, path);
            meaning = familiar::nearest_meaning(name).filter(|_| suggestions.is_empty());
        }
        let advice = match meaning {
            Some(Meaning::Advice(advice)) => Some(advice),
            Some(Meaning::Keys(keys)) => {
                suggestions.extend(keys.iter().map(|key| (*key).to_owned()));
                None
            }
            None => None,
        };
        let help = if path.is_empty() && name == "extends" {
            "only a file can use `extends`: write it there".into()
        } else if path.is_empty() && name == "sweep" {
            "only a file can contain [sweep]: write it there".into()
        } else if let Some(advice) = advice {
            advice.into()
        } else if suggestions.is_empty() {
            let names = fields.iter().map(|field| field.name.clone());
            format!("valid keys: {}", names.collect::<Vec<_>>().join(", "))
        } else {
            let shown = suggestions.iter().map(|key| {
                let sibling = key.strip_prefix(path).map(|rest| rest.trim_start_matches('.'));
                format!("`{}`", sibling.filter(|rest| !rest.contains('.')).unwrap_or(key))
            });
            format!("did you mean {}?", listed(shown))
        };
        self.broken.extend(suggestions);
        self.problems.push(Problem::new(message, place).label("not a key").help(help));
    }

    fn table(&mut self, table: Table, fields: &[Field], path: &str) -> Table {
        let mut kept = Table::new();
        for (name, node) in table {
            match fields.iter().find(|field| field.name == name) {
                Some(field) => {
                    let before = self.problems.len();
                    if let Some(node) = self.value(node, &field.shape, &join(path, &name)) {
                        kept.insert(name, node);
                    }
                    let default = field.default.as_ref().filter(|value| !value.is_object());
                    let way_out = match default {
                        Some(value) => format!("omit it to use the default, {value}"),
                        None if field.required => format!("write {}", field.shape.words()),
                        None => "omit it".into(),
                    };
                    for problem in &mut self.problems[before..] {
                        problem.help.get_or_insert_with(|| way_out.clone());
                    }
                }
                None => self.unknown_key(&name, node.key, fields, path),
            }
        }
        kept
    }

    /// Checks a value against its shape; integers become floats where a float is expected.
    fn value(&mut self, node: Node, shape: &Shape, path: &str) -> Option<Node> {
        let Node { key, place, data } = node;
        let data = match (data, shape) {
            (data, Shape::Either(shapes)) => {
                if let Some(chosen) = shapes.iter().find(|shape| takes(shape, &data)) {
                    let others = shapes.iter().filter(|other| *other != chosen).map(Shape::words);
                    let before = self.problems.len();
                    let node = self.value(Node { key, place, data }, chosen, path);
                    if let (Shape::Choice(_), [problem]) = (chosen, &mut self.problems[before..])
                        && let Some(help) = &mut problem.help
                    {
                        help.push_str(&format!(", or {}", listed(others)));
                    }
                    return node;
                }
                return self.wrong_type(Node { key, place, data }, shape, path);
            }
            (Data::Table(table), Shape::Table(fields)) => Data::Table(self.table(table, fields, path)),
            (Data::Table(table), Shape::Map(item)) => {
                let entry = |(name, node): (String, Node)| {
                    let node = self.value(node, item, &join(path, &name))?;
                    Some((name, node))
                };
                Data::Table(table.into_iter().filter_map(entry).collect())
            }
            (Data::List(items), Shape::List { item, min_items, max_items }) => {
                let count = items.len();
                if count < *min_items || count > *max_items {
                    let wanted = if min_items == max_items { *min_items } else { (*min_items).max(1) };
                    let message = format!("`{path}` takes {wanted} values, not {count}");
                    return self.wrong_value(message, String::new(), place, path);
                }
                let items = items.into_iter().enumerate();
                let kept: Vec<Option<Node>> =
                    items.map(|(index, node)| self.value(node, item, &format!("{path}[{index}]"))).collect();
                // A list is replaced as a whole, so one wrong item makes its value unknown.
                Data::List(kept.into_iter().collect::<Option<_>>()?)
            }
            (Data::Integer(value), Shape::Integer(bounds)) => {
                let fits = i64::try_from(value).is_ok();
                if !fits || !bounds.allow(value as f64) {
                    let words = if fits { bounds.words() } else { "a 64-bit integer".into() };
                    return self.out_of_bounds(path, &value.to_string(), &words, place);
                }
                Data::Integer(value)
            }
            (Data::Integer(value), Shape::Float(bounds)) => self.float(value as f64, bounds, &place, path)?,
            (Data::Float(value), Shape::Float(bounds)) => self.float(value, bounds, &place, path)?,
            (Data::Text(text), Shape::Choice(choices)) => {
                if !choices.iter().any(|choice| choice.name == text) {
                    let names = || choices.iter().map(|choice| choice.name.as_str());
                    let message = format!("`{path}` cannot be \"{text}\"");
                    let help = not_one_of(&text, names());
                    return self.wrong_value(message, help, place, path);
                }
                Data::Text(text)
            }
            (data, Shape::Any) => data,
            (data @ Data::Text(_), Shape::Text) | (data @ Data::Bool(_), Shape::Bool) => data,
            (data, shape) => return self.wrong_type(Node { key, place, data }, shape, path),
        };
        Some(Node { key, place, data })
    }

    fn float(&mut self, value: f64, bounds: &Bounds, place: &Place, path: &str) -> Option<Data> {
        if bounds.allow(value) {
            return Some(Data::Float(value));
        }
        let words = if value.is_finite() { bounds.words() } else { "a finite number".into() };
        self.out_of_bounds(path, &value.to_string(), &words, place.clone());
        None
    }

    fn out_of_bounds(&mut self, path: &str, value: &str, words: &str, place: Place) -> Option<Node> {
        self.broken.insert(path.to_owned());
        self.problems.push(Problem::new(format!("`{path}` must be {words}, not {value}"), place));
        None
    }

    fn wrong_value(&mut self, message: String, help: String, place: Place, path: &str) -> Option<Node> {
        self.broken.insert(path.to_owned());
        let problem = Problem::new(message, place);
        self.problems.push(if help.is_empty() { problem } else { problem.help(help) });
        None
    }

    fn wrong_type(&mut self, node: Node, shape: &Shape, path: &str) -> Option<Node> {
        self.broken.insert(path.to_owned());
        let message = format!("`{path}` must be {}, not {}", shape.words(), node.data.words());
        let problem = Problem::new(message, node.place).label(format!("this is {}", node.data.words()));
        self.problems.push(match conversion(&node.data, shape, path) {
            Some(help) => problem.help(help),
            None => problem,
        });
        None
    }
}

/// `did you mean ...? expected one of ...`, for a word that is not in `valid`.
pub(super) fn not_one_of<'a>(typed: &str, valid: impl Iterator<Item = &'a str> + Clone) -> String {
    let all = format!("expected one of {}", valid.clone().collect::<Vec<_>>().join(", "));
    if let Some(word) = familiar::meant_word(typed, valid.clone()) {
        return format!("did you mean \"{word}\"? {all}");
    }
    match nearest(typed, valid).as_slice() {
        [] => all,
        near => format!("did you mean {}? {all}", listed(near.iter().map(|word| format!("\"{word}\"")))),
    }
}

/// What a name from elsewhere means, unless it is a slip of one letter in a key of this table.
fn familiar(name: &str, fields: &[Field], path: &str) -> Option<Meaning> {
    let typed = name.to_lowercase().replace('-', "_");
    let is_slip = fields.iter().any(|field| strsim::osa_distance(&typed, &field.name) <= 1);
    if is_slip { None } else { familiar::meaning_of(name, path) }
}

/// Full paths of the keys that `name` may have been meant for.
///
/// In order of preference: a one-letter typo of one of the table's own keys, the same name in another table, the
/// nearest of the table's keys, the nearest key anywhere.
fn suggestions(name: &str, fields: &[Field], path: &str) -> Vec<String> {
    // These are parsed before the tables are checked, so they are not in the shape.
    let apart: &[&str] = if path.is_empty() { &["extends", "sweep"] } else { &[] };
    let siblings = nearest(name, fields.iter().map(|field| field.name.as_str()).chain(apart.iter().copied()));
    let siblings: Vec<String> = siblings.into_iter().map(|sibling| join(path, sibling)).collect();
    let one_letter = |key: &String| {
        let last = key.rsplit('.').next().unwrap_or(key);
        strsim::osa_distance(name, last) <= 1
    };
    if siblings.iter().any(one_letter) {
        return siblings;
    }
    let mut everywhere = Vec::new();
    keys(shape::experiment(), "", &mut everywhere);
    // A table is not meant by its own name inside of it.
    let elsewhere = |last: &str| -> Vec<String> {
        let is_meant = |key: &&String| *key != path && key.rsplit('.').next() == Some(last);
        everywhere.iter().filter(is_meant).cloned().collect()
    };
    let exact = elsewhere(name);
    if !exact.is_empty() {
        return exact;
    }
    if !siblings.is_empty() {
        return siblings;
    }
    let mut names: Vec<&str> = everywhere.iter().filter_map(|key| key.rsplit('.').next()).collect();
    names.sort_unstable();
    names.dedup();
    nearest(name, names).into_iter().flat_map(elsewhere).collect()
}

/// Every key of the tables at any depth; keys inside lists have no path.
fn keys(shape: &Shape, path: &str, into: &mut Vec<String>) {
    match shape {
        Shape::Table(fields) => {
            for field in fields {
                let path = join(path, &field.name);
                keys(&field.shape, &path, into);
                into.push(path);
            }
        }
        Shape::Either(shapes) => shapes.iter().for_each(|shape| keys(shape, path, into)),
        _ => {}
    }
}

/// Whether `data` has the right TOML type for the shape.
pub(super) fn takes(shape: &Shape, data: &Data) -> bool {
    match (shape, data) {
        (Shape::Either(shapes), data) => shapes.iter().any(|shape| takes(shape, data)),
        (Shape::Any, _) => true,
        (Shape::Table(_) | Shape::Map(_), Data::Table(_))
        | (Shape::List { .. }, Data::List(_))
        | (Shape::Integer(_), Data::Integer(_))
        | (Shape::Float(_), Data::Integer(_) | Data::Float(_))
        | (Shape::Bool, Data::Bool(_))
        | (Shape::Text | Shape::Choice(_), Data::Text(_)) => true,
        _ => false,
    }
}

/// How to write the value with the right type, if that is obvious.
fn conversion(data: &Data, shape: &Shape, path: &str) -> Option<String> {
    match (data, shape) {
        (Data::Text(text), Shape::Table(fields)) => {
            let field = fields.iter().find(|field| field.shape.has_choice(text));
            Some(match field {
                Some(field) => format!("write {} = {text:?}", join(path, &field.name)),
                None => format!("write its keys under [{path}]"),
            })
        }
        (Data::Text(text), Shape::Integer(_)) if text.parse::<i64>().is_ok() => {
            Some(format!("write {text} without quotes"))
        }
        (Data::Text(text), Shape::Float(_)) if text.parse::<f64>().is_ok() => {
            Some(format!("write {text} without quotes"))
        }
        (Data::Text(text), Shape::Bool) if text == "true" || text == "false" => {
            Some(format!("write {text} without quotes"))
        }
        (Data::Integer(value @ (0 | 1)), Shape::Bool) => {
            Some(format!("write {}", if *value == 1 { "true" } else { "false" }))
        }
        (Data::Float(value), Shape::Integer(_)) if value.fract() == 0.0 && value.abs() < 1e15 => {
            Some(format!("write {value}"))
        }
        (Data::Integer(value), shape) if shape.takes_text() => Some(format!("write \"{value}\"")),
        (data, Shape::List { item, .. }) if takes(item, data) => match data {
            Data::Text(text) => Some(format!("write [{text:?}]")),
            Data::Integer(value) => Some(format!("write [{value}]")),
            Data::Float(value) => Some(format!("write [{value}]")),
            Data::Table(_) => {
                Some("write it between brackets: [{ ... }], or under a [[double]] header".into())
            }
            _ => None,
        },
        _ => None,
    }
}
