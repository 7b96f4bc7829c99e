//! Columns of the run list: properties of the run, values of its experiment, and metrics.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::overview::Overview;
use crate::plan::table::{TABLE, role};
use oss_config::error::{UserError, user_errors};
use oss_config::nearest;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// A property of the run.
    Fact(Fact),
    /// A key of the experiment file, such as `optimizer.lr`.
    Key(String),
    /// The last value of a metric, such as `val_loss`.
    Metric(String),
}

/// Properties that every run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Run id.
    Id,
    /// Name of the experiment.
    Name,
    /// Its state.
    State,
    /// Steps taken.
    Step,
    /// Its target number of steps.
    Steps,
    /// When it was last started, in UTC.
    Started,
    /// Total working time in seconds.
    Duration,
    /// Size of its files in bytes.
    Size,
    /// Labels.
    Labels,
    /// Notes.
    Notes,
    /// Its directory.
    Directory,
}

impl Fact {
    const ALL: [Self; 11] = [
        Self::Id,
        Self::Name,
        Self::State,
        Self::Step,
        Self::Steps,
        Self::Started,
        Self::Duration,
        Self::Size,
        Self::Labels,
        Self::Notes,
        Self::Directory,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::State => "state",
            Self::Step => "step",
            Self::Steps => "steps",
            Self::Started => "started",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::Labels => "labels",
            Self::Notes => "notes",
            Self::Directory => "directory",
        }
    }
}

/// An invalid query.
#[derive(Debug)]
pub enum QueryError {
    /// No property, key or metric has this name.
    Unknown {
        /// The requested name.
        asked: String,
        /// The closest existing name.
        nearest: Option<String>,
    },
    /// Not a comparison.
    NoComparison(String),
    /// `<` and `>` need a number.
    NoNumber(String),
    /// Not a valid name pattern.
    NoPattern {
        /// The pattern.
        pattern: String,
        /// The problem.
        what: String,
    },
}

impl From<QueryError> for UserError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Unknown { asked, nearest } => {
                Self::wrong(format!("no column {asked}")).hint(suggestion(nearest.as_deref()))
            }
            QueryError::NoComparison(what) => Self::wrong(format!("{what:?} is not a comparison"))
                .hint("write KEY=VALUE, or use one of != < <= > >=, quoted for the shell"),
            QueryError::NoNumber(what) => Self::wrong(format!("{what:?} does not compare with a number"))
                .hint("< <= > >= need a number; = and != accept any value"),
            QueryError::NoPattern { pattern, what } => {
                Self::wrong(format!("invalid pattern {pattern:?} ({what})"))
                    .hint("write a pattern such as 'tiny*'")
            }
        }
    }
}

user_errors!(QueryError);

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => {
            let facts: Vec<&str> = Fact::ALL.iter().map(|fact| fact.word()).collect();
            format!("available: {}, keys of experiment files, and metrics", facts.join(", "))
        }
    }
}

/// The columns shown by default.
pub const DEFAULT: [&str; 9] =
    ["id", "name", "state", "step", "val_loss", "loss", "started", "duration", "labels"];

/// Columns of [`DEFAULT`] that a narrow terminal leaves out, the least important first.
pub const OPTIONAL: [&str; 6] = ["labels", "duration", "loss", "started", "val_loss", "step"];

/// Metrics that are accepted even if no run has logged them.
const METRICS: [&str; 2] = ["loss", "val_loss"];

/// Names of columns that every run has.
pub fn names() -> impl Iterator<Item = &'static str> {
    Fact::ALL.into_iter().map(Fact::word).chain(METRICS)
}

impl Column {
    /// The column named `word`. A name that is neither a property nor a key is taken as a metric, and checked by
    /// [`Column::check`] once the runs have been read.
    pub fn parse(word: &str) -> Self {
        let word = word.trim();
        match Fact::ALL.into_iter().find(|fact| fact.word() == word) {
            Some(fact) => Self::Fact(fact),
            None if role(word).is_some() => Self::Key(word.to_owned()),
            None => Self::Metric(word.to_owned()),
        }
    }

    /// Its name.
    pub fn word(&self) -> &str {
        match self {
            Self::Fact(fact) => fact.word(),
            Self::Key(word) | Self::Metric(word) => word,
        }
    }

    /// The metric that it needs, if any.
    pub fn metric(&self) -> Option<&str> {
        match self {
            Self::Metric(name) => Some(name),
            _ => None,
        }
    }

    /// Rejects a name that none of the runs knows.
    ///
    /// # Errors
    /// [`QueryError::Unknown`].
    pub fn check(&self, runs: &[Overview]) -> Result<(), QueryError> {
        let Self::Metric(name) = self else { return Ok(()) };
        let seen: BTreeSet<&str> =
            runs.iter().flat_map(|run| run.tail.names.iter().map(String::as_str)).collect();
        if METRICS.contains(&name.as_str()) || seen.contains(name.as_str()) {
            return Ok(());
        }
        let facts = Fact::ALL.iter().map(|fact| fact.word());
        let keys = TABLE.iter().map(|(key, _)| *key);
        let mut near = nearest(name, facts.chain(METRICS).chain(seen).chain(keys));
        if near.is_empty() {
            // Users tend to remember the last part of a key.
            let last = |key: &str| key.rsplit('.').next().is_some_and(|last| last == name);
            near.extend(TABLE.iter().map(|(key, _)| *key).filter(|key| last(key)));
        }
        Err(QueryError::Unknown { asked: name.clone(), nearest: near.first().map(|word| (*word).to_owned()) })
    }

    /// Its value for a run; null if there is none.
    pub fn value(&self, run: &Overview) -> Value {
        match self {
            Self::Fact(fact) => fact.value(run),
            Self::Key(key) => run.value(key),
            // JSON has no NaN, and a NaN loss must not look like one that was never measured.
            Self::Metric(name) => match run.metric(name) {
                Some(number) if number.is_nan() => json!("nan"),
                number => json!(number),
            },
        }
    }
}

impl Fact {
    fn value(self, run: &Overview) -> Value {
        match self {
            Self::Id => json!(run.run.id()),
            Self::Name => json!(run.name()),
            Self::State => json!(run.status),
            Self::Step => json!(run.step),
            Self::Steps => json!(run.steps()),
            Self::Started => {
                json!(run.started().map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)))
            }
            Self::Duration => json!(run.duration().map(|time| time.as_seconds_f64())),
            Self::Size => json!(run.bytes()),
            Self::Labels => json!(run.labels()),
            Self::Notes => json!(run.notes()),
            Self::Directory => json!(run.run.root()),
        }
    }
}

/// The order of two values of a column: numbers by value, then strings, then everything else by its text, and missing
/// values last.
pub fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Null => 3,
        _ => 2,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().unwrap_or(f64::NAN).total_cmp(&b.as_f64().unwrap_or(f64::NAN))
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
    }
}
