//! What can be asked of every run: its own facts, the values of its experiment, its metrics.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::overview::Overview;
use crate::plan::table::{TABLE, role};
use oss_config::error::{UserError, user_errors};
use oss_config::nearest;

/// One thing to know of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// A fact of the run.
    Fact(Fact),
    /// A key of the experiment file, such as `optimizer.lr`.
    Key(String),
    /// The last value of a metric, such as `val_loss`.
    Metric(String),
}

/// What is known of every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Run id.
    Id,
    /// Name of the experiment.
    Name,
    /// How it stands.
    State,
    /// Steps taken.
    Step,
    /// Steps that it shall take.
    Steps,
    /// When it was last started, in UTC.
    Started,
    /// Seconds of work.
    Duration,
    /// Bytes of its files.
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

/// A question that makes no sense.
#[derive(Debug)]
pub enum QueryError {
    /// No fact, key or metric has this name.
    Unknown {
        /// What was asked for.
        asked: String,
        /// The name most like it.
        nearest: Option<String>,
    },
    /// No comparison.
    NoComparison(String),
    /// Less and greater are for numbers.
    NoNumber(String),
    /// No pattern of names.
    NoPattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
}

impl From<QueryError> for UserError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Unknown { asked, nearest } => {
                Self::wrong(format!("there is no column {asked}")).hint(suggestion(nearest.as_deref()))
            }
            QueryError::NoComparison(what) => Self::wrong(format!("{what:?} compares nothing"))
                .hint("write KEY=VALUE, or one of != < <= > >= between them, in quotes for the shell"),
            QueryError::NoNumber(what) => Self::wrong(format!("{what:?} compares with what is no number"))
                .hint("< <= > >= take a number, = and != take anything"),
            QueryError::NoPattern { pattern, what } => {
                Self::wrong(format!("{pattern:?} is no pattern ({what})")).hint("write one such as 'tiny*'")
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
            format!("there are {}, the keys of experiment files and the metrics", facts.join(", "))
        }
    }
}

/// What is shown unless other columns are asked for.
pub const DEFAULT: [&str; 9] =
    ["id", "name", "state", "step", "val_loss", "loss", "started", "duration", "labels"];

/// Metrics that are known even where no run has logged one.
const METRICS: [&str; 2] = ["loss", "val_loss"];

impl Column {
    /// The column that `word` names; what is neither fact nor key can only be a metric, which [`Column::check`] knows
    /// once the runs are read.
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

    /// The metric that has to be read for it.
    pub fn metric(&self) -> Option<&str> {
        match self {
            Self::Metric(name) => Some(name),
            _ => None,
        }
    }

    /// Refuses a name that none of the runs knows.
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
            // The last word of a key is what people remember.
            let last = |key: &str| key.rsplit('.').next().is_some_and(|last| last == name);
            near.extend(TABLE.iter().map(|(key, _)| *key).filter(|key| last(key)));
        }
        Err(QueryError::Unknown { asked: name.clone(), nearest: near.first().map(|word| (*word).to_owned()) })
    }

    /// What it says of a run; null where there is nothing to say.
    pub fn value(&self, run: &Overview) -> Value {
        match self {
            Self::Fact(fact) => fact.value(run),
            Self::Key(key) => run.value(key),
            // JSON knows no NaN, and a loss that is none must not look like one that was never measured.
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

/// The order of two values of a column: numbers by size, then texts, then everything else as it is written, and last
/// what is not there.
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
