//! What a key accepts: the JSON Schema compiled into the few kinds of value that an experiment file contains.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::schema;

/// The kind of value that a key accepts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// A table with known keys.
    Table(Vec<Field>),
    /// A table with arbitrary keys.
    Map(Box<Shape>),
    List {
        item: Box<Shape>,
        min_items: usize,
        max_items: usize,
    },
    Integer(Bounds),
    /// A float; integers are accepted too.
    Float(Bounds),
    Bool,
    Text,
    /// Any value, such as one of another key.
    Any,
    /// One of a fixed set of strings.
    Choice(Vec<Choice>),
    /// One of several shapes of different TOML types.
    Either(Vec<Shape>),
}

/// A key of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub name: String,
    pub description: String,
    pub shape: Shape,
    pub default: Option<Value>,
    pub required: bool,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    pub name: String,
    pub description: String,
}

/// Bounds of a number; `min` and `max` are inclusive, `above` and `below` exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bounds {
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub above: Option<f64>,
    pub below: Option<f64>,
}

impl Bounds {
    /// Whether `value` is finite and within the bounds.
    pub fn allow(&self, value: f64) -> bool {
        value.is_finite()
            && self.min.is_none_or(|least| value >= least)
            && self.max.is_none_or(|most| value <= most)
            && self.above.is_none_or(|least| value > least)
            && self.below.is_none_or(|most| value < most)
    }

    /// The bounds as text, such as `at least 1`; empty if there are none.
    pub fn words(&self) -> String {
        let parts = [
            self.min.map(|least| format!("at least {least}")),
            self.above.map(|least| format!("above {least}")),
            self.max.map(|most| format!("at most {most}")),
            self.below.map(|most| format!("below {most}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

/// The shape of one experiment: of a file without `extends` and `[sweep]`.
pub(super) fn experiment() -> &'static Shape {
    static SHAPE: LazyLock<Shape> = LazyLock::new(|| match file() {
        Shape::Table(fields) => {
            let is_apart = |field: &Field| ["extends", "sweep"].contains(&field.name.as_str());
            Shape::Table(fields.into_iter().filter(|field| !is_apart(field)).collect())
        }
        other => other,
    });
    &SHAPE
}

/// The shape of `[sweep]`.
pub(super) fn sweep() -> &'static Shape {
    static SHAPE: LazyLock<Shape> =
        LazyLock::new(|| file().field("sweep").map_or(Shape::Any, |field| field.shape.clone()));
    &SHAPE
}

/// The shape of a whole file.
pub(super) fn file() -> Shape {
    let schema = schema();
    compile(&schema, &schema)
}

impl Shape {
    /// The key `name` of a table.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match self {
            Self::Table(fields) => fields.iter().find(|field| field.name == name),
            Self::Either(shapes) => shapes.iter().find_map(|shape| shape.field(name)),
            _ => None,
        }
    }

    /// The table among the shapes of a key, or the shape itself.
    pub fn table(&self) -> &Self {
        match self {
            Self::Either(shapes) => {
                shapes.iter().find(|shape| matches!(shape, Self::Table(_))).unwrap_or(self)
            }
            _ => self,
        }
    }

    /// The shape at a path of keys.
    pub fn at<'a>(&self, mut keys: impl Iterator<Item = &'a str>) -> Option<&Shape> {
        match keys.next() {
            None => Some(self),
            Some(key) => match self {
                Self::Map(item) => item.at(keys),
                _ => self.field(key)?.shape.at(keys),
            },
        }
    }

    /// Whether a string can be valid here.
    pub fn takes_text(&self) -> bool {
        match self {
            Self::Text | Self::Choice(_) => true,
            Self::Either(shapes) => shapes.iter().any(Self::takes_text),
            _ => false,
        }
    }

    /// Whether `text` is one of the fixed strings that are valid here.
    pub fn has_choice(&self, text: &str) -> bool {
        match self {
            Self::Choice(choices) => choices.iter().any(|choice| choice.name == text),
            Self::Either(shapes) => shapes.iter().any(|shape| shape.has_choice(text)),
            _ => false,
        }
    }

    /// The kind of value as text, with its article.
    pub fn words(&self) -> String {
        match self {
            Self::Table(_) | Self::Map(_) => "a table".into(),
            Self::List { item, .. } => format!("a list of {}", item.plural()),
            Self::Integer(_) => "an integer".into(),
            Self::Float(_) => "a number".into(),
            Self::Bool => "true or false".into(),
            Self::Any => "any value".into(),
            Self::Text => "a string".into(),
            Self::Choice(choices) => listed(choices.iter().map(|choice| format!("\"{}\"", choice.name))),
            Self::Either(shapes) => listed(shapes.iter().map(Self::words)),
        }
    }

    fn plural(&self) -> String {
        match self {
            Self::Table(_) | Self::Map(_) => "tables".into(),
            Self::List { .. } => "lists".into(),
            Self::Integer(_) => "integers".into(),
            Self::Float(_) => "numbers".into(),
            Self::Bool => "booleans".into(),
            Self::Any => "values".into(),
            Self::Text => "strings".into(),
            Self::Choice(_) | Self::Either(_) => self.words(),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn listed(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    match words.pop() {
        None => String::new(),
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
    }
}

fn compile(schema: &Value, root: &Value) -> Shape {
    let is_any = schema.as_bool() == Some(true) || schema.as_object().is_some_and(allows_anything);
    if is_any {
        return Shape::Any;
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = target.trim_start_matches('#');
        return root.pointer(pointer).map_or(Shape::Text, |found| compile(found, root));
    }
    if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        return compile(only, root);
    }
    if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("enum")).and_then(Value::as_array) {
        return Shape::Choice(choices.iter().flat_map(choices_of).collect());
    }
    if let Some(shapes) = schema.get("anyOf").and_then(Value::as_array) {
        return Shape::Either(shapes.iter().map(|shape| compile(shape, root)).collect());
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => table(schema, root),
        Some("array") => {
            let count = |key: &str| schema.get(key).and_then(Value::as_u64);
            Shape::List {
                item: Box::new(schema.get("items").map_or(Shape::Text, |item| compile(item, root))),
                min_items: count("minItems").unwrap_or(0) as usize,
                max_items: count("maxItems").map_or(usize::MAX, |most| most as usize),
            }
        }
        Some("integer") => Shape::Integer(integer_bounds(schema)),
        Some("number") => Shape::Float(bounds(schema)),
        Some("boolean") => Shape::Bool,
        _ => Shape::Text,
    }
}

/// The schema has only annotations.
fn allows_anything(schema: &Map<String, Value>) -> bool {
    schema.keys().all(|key| ["description", "title", "default"].contains(&key.as_str()))
}

fn table(schema: &Value, root: &Value) -> Shape {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        let item = schema.get("additionalProperties").map_or(Shape::Text, |item| compile(item, root));
        return Shape::Map(Box::new(item));
    };
    let required = schema.get("required").and_then(Value::as_array);
    let fields = properties.iter().map(|(name, property)| Field {
        name: name.clone(),
        description: text(property, "description"),
        shape: compile(property, root),
        default: property.get("default").cloned(),
        required: required.is_some_and(|names| names.iter().any(|required| required == name)),
    });
    Shape::Table(fields.collect())
}

/// A documented variant (`const`), or several undocumented ones (`enum`).
fn choices_of(schema: &Value) -> Vec<Choice> {
    let description = text(schema, "description");
    let choice =
        |name: &Value| Some(Choice { name: name.as_str()?.to_owned(), description: description.clone() });
    match schema {
        Value::String(_) => choice(schema).into_iter().collect(),
        _ => match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(name), _) => choice(name).into_iter().collect(),
            (None, Some(names)) => names.iter().filter_map(choice).collect(),
            (None, None) => Vec::new(),
        },
    }
}

fn bounds(schema: &Value) -> Bounds {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    Bounds {
        min: number("minimum"),
        max: number("maximum"),
        above: number("exclusiveMinimum"),
        below: number("exclusiveMaximum"),
    }
}

/// The bounds in the schema, narrowed to the Rust type and TOML's 64-bit integers.
fn integer_bounds(schema: &Value) -> Bounds {
    let stated = bounds(schema);
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    };
    Bounds { max: stated.max.or(most), ..stated }
}

fn text(schema: &Value, key: &str) -> String {
    schema.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
