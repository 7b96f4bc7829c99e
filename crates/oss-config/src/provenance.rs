//! Which layer set each key.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Experiment, Resolved,
    document::{Place, SourceKind},
    key_path::join,
};

/// The origin of a key's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "snake_case")]
pub enum SetBy {
    /// Not set: the type's default.
    Default,
    /// The name of the experiment file, from which the run takes its name.
    FileName,
    /// Not set, and determined by an input, such as the initial weights.
    Input {
        /// Which one.
        from: String,
    },
    /// Not set: it follows from other values.
    Derived {
        /// From which, and how: `train.steps`, `a fifth of train.steps`.
        how: String,
    },
    /// A preset, and where it was named.
    Preset {
        /// The preset, such as `20b`.
        name: String,
        /// Where it was named.
        named: Box<SetBy>,
    },
    /// A file, with the 1-based line and column (in characters) of the value.
    File {
        /// The file as named by the user.
        path: PathBuf,
        /// Line, 1-based.
        line: usize,
        /// Column in characters, 1-based.
        column: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A `--set` argument.
    Argument {
        /// The argument, `key=value`.
        argument: String,
    },
}

impl SetBy {
    pub(super) fn of(place: &Place) -> Self {
        match &place.source.kind {
            SourceKind::File(path) => {
                let (line, column) = place.line_and_column();
                Self::File { path: path.clone(), line, column }
            }
            SourceKind::Environment { variable } => Self::Environment { variable: variable.clone() },
            SourceKind::Argument(_) => Self::Argument { argument: place.source.text.clone() },
        }
    }

    /// Whether the user set this value, directly or by a preset.
    pub fn is_explicit(&self) -> bool {
        !matches!(self, Self::Default | Self::FileName | Self::Input { .. } | Self::Derived { .. })
    }

    fn preset(&self) -> Option<&str> {
        match self {
            Self::Preset { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for SetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::FileName => f.write_str("file name"),
            Self::Input { from } => f.write_str(from),
            Self::Derived { how } => write!(f, "default: {how}"),
            Self::Preset { name, named } => write!(f, "preset {name} ({named})"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Argument { argument } => write!(f, "--set {argument}"),
        }
    }
}

/// The origin of every key that has a value of its own: a scalar or a list, such as `train.steps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Provenance(BTreeMap<String, SetBy>);

impl Provenance {
    /// The origin of `key`, a dotted path; [`SetBy::Default`] if it was not set.
    pub fn of(&self, key: &str) -> &SetBy {
        self.0.get(key).unwrap_or(&SetBy::Default)
    }

    /// Whether the user set `key`, or a value inside it if it is a table.
    pub fn is_set(&self, key: &str) -> bool {
        let is_inside = |other: &str| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        self.iter().any(|(other, set_by)| (other == key || is_inside(other)) && set_by.is_explicit())
    }

    /// Every key and its origin, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SetBy)> {
        self.0.iter().map(|(key, set_by)| (key.as_str(), set_by))
    }

    pub(super) fn set(&mut self, key: String, set_by: SetBy) {
        self.0.insert(key, set_by);
    }
}

/// A key, its value and the value's origin: one line of `plan --explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The key, such as `train.steps`.
    pub key: String,
    /// Its value as TOML; `None` if unset.
    pub value: Option<String>,
    /// Where the value came from.
    #[serde(flatten)]
    pub set_by: SetBy,
}

impl Resolved {
    /// Every key of the experiment, by name.
    pub fn explain(&self) -> Vec<Explained> {
        let mut values = self.experiment.values();
        // The fields of a preset take its place.
        if let Some(name) = self.provenance.iter().find_map(|(_, set_by)| set_by.preset()) {
            values.insert("model.preset".to_owned(), toml::Value::from(name).to_string());
        }
        let explained = |(key, set_by): (&str, &SetBy)| Explained {
            key: key.to_owned(),
            value: values.remove(key),
            set_by: set_by.clone(),
        };
        self.provenance.iter().map(explained).collect()
    }
}

impl Experiment {
    /// The values that are set, as TOML, by key.
    pub fn values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        if let Ok(experiment) = toml::Table::try_from(self) {
            flatten(experiment, "", &mut values);
        }
        values
    }
}

fn flatten(table: toml::Table, path: &str, into: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let path = join(path, &name);
        match value {
            toml::Value::Table(inner) => flatten(inner, &path, into),
            value => {
                into.insert(path, value.to_string());
            }
        }
    }
}
