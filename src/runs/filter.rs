//! Selects runs by name, state, label and conditions on columns.

use std::str::FromStr;

use glob::Pattern;
use serde_json::Value;

use super::columns::{Column, QueryError};
use super::overview::Overview;
use oss_runs::run_dir::{RunDir, RunStatus};

/// Conditions on a run, all of which must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One of these names, ids or `name/id`; any if empty.
    pub names: Vec<Pattern>,
    /// One of these states; any if empty.
    pub states: Vec<RunStatus>,
    /// All of these labels, with a value if given.
    pub labels: Vec<(String, Option<String>)>,
    /// All of these comparisons.
    pub conditions: Vec<Condition>,
}

impl Filter {
    /// Whether `run` matches.
    pub fn matches(&self, run: &Overview) -> bool {
        let name = || self.names.iter().any(|pattern| is_named(&run.run, pattern));
        let labels = run.labels();
        let has = |(name, value): &(String, Option<String>)| {
            labels.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        (self.names.is_empty() || name())
            && (self.states.is_empty() || self.states.contains(&run.status))
            && self.labels.iter().all(has)
            && self.conditions.iter().all(|condition| condition.holds(run))
    }
}

/// Whether the name, the id or `name/id` of `run` matches.
pub fn is_named(run: &RunDir, pattern: &Pattern) -> bool {
    let (name, id) = (run.name(), run.id());
    let path = format!("{name}/{id}");
    [name, id, path].iter().any(|text| pattern.matches(text))
}

/// A name pattern: `*` matches anything.
///
/// # Errors
/// [`QueryError::NoPattern`].
pub fn pattern(text: &str) -> Result<Pattern, QueryError> {
    Pattern::new(text)
        .map_err(|error| QueryError::NoPattern { pattern: text.to_owned(), what: error.msg.to_owned() })
}

/// A label condition: `name` or `name=value`.
pub fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.trim().to_owned(), Some(value.trim().to_owned())),
        None => (text.trim().to_owned(), None),
    }
}

/// `optimizer.lr=1e-3`, `val_loss<2`: a column compared with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The column.
    pub column: Column,
    comparison: Comparison,
}

#[derive(Clone, Debug, PartialEq)]
enum Comparison {
    Equal(String),
    Different(String),
    /// The orderings of value and number for which it holds.
    Number {
        less: bool,
        equal: bool,
        number: f64,
    },
}

impl FromStr for Condition {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let none = || QueryError::NoComparison(text.to_owned());
        let at = text.find(['=', '!', '<', '>']).ok_or_else(none)?;
        let (column, rest) = text.split_at(at);
        let operators = ["!=", "<=", ">=", "=", "<", ">"];
        let operator = operators.into_iter().find(|operator| rest.starts_with(operator)).ok_or_else(none)?;
        let value = rest[operator.len()..].trim();
        if column.trim().is_empty() {
            return Err(none());
        }
        let comparison = match operator {
            "=" => Comparison::Equal(value.to_owned()),
            "!=" => Comparison::Different(value.to_owned()),
            _ => Comparison::Number {
                less: operator.starts_with('<'),
                equal: operator.ends_with('='),
                number: value.parse().map_err(|_| QueryError::NoNumber(text.to_owned()))?,
            },
        };
        Ok(Self { column: Column::parse(column), comparison })
    }
}

impl Condition {
    fn holds(&self, run: &Overview) -> bool {
        let found = self.column.value(run);
        match &self.comparison {
            Comparison::Equal(value) => equals(&found, value),
            Comparison::Different(value) => !equals(&found, value),
            Comparison::Number { less, equal, number } => found.as_f64().is_some_and(|found| {
                let beyond = if *less { found < *number } else { found > *number };
                beyond || (*equal && found == *number)
            }),
        }
    }
}

/// Whether `found` equals `text`: the same number in any notation, the same string, or both empty.
fn equals(found: &Value, text: &str) -> bool {
    match found {
        Value::Null => text.is_empty(),
        Value::String(found) => found == text.trim_matches('"'),
        Value::Number(found) => text.parse().is_ok_and(|number| found.as_f64() == Some(number)),
        // Booleans and lists look the same in JSON and TOML; tables must be written as JSON.
        other => serde_json::from_str::<Value>(text).is_ok_and(|value| value == *other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use oss_config::error::ErrorReport;
    use oss_runs::monitor::MetricsTail;
    use oss_runs::run_dir::Manifest;

    fn run() -> Overview {
        let experiment = json!({
            "run": {"labels": {"paper": "yes", "a.b": "c"}},
            "optimizer": {"lr": 0.001, "kind": "adamw", "betas": [0.9, 0.95]},
            "train": {"activation_checkpointing": true},
        });
        let mut tail = MetricsTail { step: Some(7), ..MetricsTail::default() };
        tail.fields.insert("loss".into(), json!(2.5));
        tail.fields.insert("val_loss".into(), Value::Null);
        tail.names.extend(["loss", "val_loss", "grad_norm"].map(str::to_owned));
        Overview {
            run: RunDir::new("runs/tiny/0123456789"),
            manifest: Ok(Manifest::new("0123456789", "tiny", experiment)),
            status: RunStatus::Done,
            step: 7,
            tail,
        }
    }

    #[test]
    fn conditions_on_facts_keys_and_metrics() {
        let run = run();
        for (text, expected) in [
            ("optimizer.lr=1e-3", true),
            ("optimizer.lr=0.002", false),
            ("optimizer.lr != 0.002", true),
            ("optimizer.lr<0.01", true),
            ("optimizer.lr>=1e-3", true),
            ("optimizer.lr>1e-3", false),
            ("optimizer.kind=adamw", true),
            ("optimizer.kind=\"adamw\"", true),
            ("optimizer.betas=[0.9, 0.95]", true),
            ("train.activation_checkpointing=true", true),
            ("train.document_mask=false", true),
            ("optimizer.max_grad_norm=", true),
            ("optimizer.max_grad_norm<1", false),
            ("run.labels.paper=yes", true),
            ("run.labels.a.b=c", true),
            ("run.labels.none=", true),
            ("loss<=2.5", true),
            ("val_loss<100", false),
            ("val_loss=nan", true),
            ("state=done", true),
            ("step>6", true),
            ("id=0123456789", true),
        ] {
            let condition: Condition = text.parse().unwrap();
            condition.column.check(&[self::run()]).unwrap();
            assert_eq!(condition.holds(&run), expected, "{text}");
        }
    }

    #[test]
    fn invalid_queries_are_rejected_with_a_hint() {
        let refused = |text: &str| ErrorReport::of(text.parse::<Condition>().unwrap_err()).to_string();
        insta::assert_snapshot!(refused("optimizer.lr"), @r#"
        "optimizer.lr" is not a comparison
        hint: write KEY=VALUE, or use one of != < <= > >=, quoted for the shell
        "#);
        insta::assert_snapshot!(refused("loss<small"), @r#"
        "loss<small" does not compare with a number
        hint: < <= > >= need a number; = and != accept any value
        "#);
        let unknown =
            |word: &str| ErrorReport::of(Column::parse(word).check(&[run()]).unwrap_err()).to_string();
        insta::assert_snapshot!(unknown("grad_nrom"), @r"
        no column grad_nrom
        hint: did you mean grad_norm?
        ");
        insta::assert_snapshot!(unknown("optimiser.lr"), @r"
        no column optimiser.lr
        hint: did you mean optimizer.lr?
        ");
        insta::assert_snapshot!(unknown("warmup_steps"), @r"
        no column warmup_steps
        hint: did you mean schedule.warmup_steps?
        ");
        insta::assert_snapshot!(unknown("zzzzzzzz"), @r"
        no column zzzzzzzz
        hint: available: id, name, state, step, steps, started, duration, size, labels, notes, directory, keys of experiment files, and metrics
        ");
        insta::assert_snapshot!(ErrorReport::of(pattern("a[").unwrap_err()), @r#"
        invalid pattern "a[" (invalid range pattern)
        hint: write a pattern such as 'tiny*'
        "#);
    }

    #[test]
    fn names_states_and_labels() {
        let run = run();
        let named = |text| Filter { names: vec![pattern(text).unwrap()], ..Filter::default() };
        for (filter, expected) in [
            (Filter::default(), true),
            (named("t*y"), true),
            (named("tiny/01*"), true),
            (named("0123456789"), true),
            (named("big*"), false),
            (Filter { states: vec![RunStatus::Failed, RunStatus::Done], ..Filter::default() }, true),
            (Filter { states: vec![RunStatus::Failed], ..Filter::default() }, false),
            (Filter { labels: vec![label("paper")], ..Filter::default() }, true),
            (Filter { labels: vec![label("paper=yes"), label("a.b=c")], ..Filter::default() }, true),
            (Filter { labels: vec![label("paper=no")], ..Filter::default() }, false),
        ] {
            assert_eq!(filter.matches(&run), expected, "{filter:?}");
        }
    }
}
