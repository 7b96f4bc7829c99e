//! Parses the `[sweep]` table and checks every key and value against the schema of the experiment file.

use std::path::PathBuf;

use serde_json::{Number, Value};

use super::{Candidates, Condition, Halving, Sweep, SweepMethod, Values};
use crate::{
    Experiment,
    document::{self, Data, Node, Place, Table},
    errors::Problem,
    layers::Layer,
    overrides,
    shape::{self, Shape},
    validate::Report,
};

/// More trials than this are almost certainly a mistake.
const MAX_TRIALS: usize = 10_000;

/// A sweep, and where each part of it was written.
#[derive(Clone, Debug)]
pub struct Swept {
    pub sweep: Sweep,
    /// The table as written, with the keys of parameters, trials and conditions as dotted paths.
    root: Table,
    /// The key `sweep` itself.
    key: Place,
    /// The directory that paths among the values are relative to.
    base: PathBuf,
}

/// Parses the table; `None` if it is too broken to say anything about its trials.
pub fn read(node: Node, base: PathBuf, report: &mut Report) -> Option<Swept> {
    let Node { key, place, data } = node;
    let Data::Table(mut root) = data else {
        let message = format!("`sweep` must be a table, not {}", data.words());
        report.problems.push(Problem::new(message, place).help("write it under [sweep]"));
        return None;
    };
    for_each_choice(&mut root, &mut |table| *table = flat(std::mem::take(table)));
    let before = report.problems.len();
    let mut root = report.conforming_sweep(root);
    let varied = varied(&root);
    for_each_choice(&mut root, &mut |table| table.retain(|key, node| is_right(key, node, report)));
    if let Some(Data::List(tables)) = root.get_mut("skip").map(|node| &mut node.data) {
        for node in tables {
            conditions(node, &varied, report);
        }
    }
    if report.problems.len() > before {
        return None;
    }
    let sweep = match serde_json::from_value(json(&Data::Table(root.clone()))) {
        Ok(sweep) => sweep,
        // The checks above are meant to catch everything.
        Err(error) => {
            report.problems.push(Problem::new(format!("`sweep`: {error}"), key));
            return None;
        }
    };
    let swept = Swept { sweep, root, key, base };
    swept.check(report);
    (report.problems.len() == before).then_some(swept)
}

/// Calls `change` with each table whose keys are keys of the experiment file.
fn for_each_choice(root: &mut Table, change: &mut dyn FnMut(&mut Table)) {
    if let Some(Data::Table(parameters)) = root.get_mut("parameters").map(|node| &mut node.data) {
        change(parameters);
    }
    for list in ["trials", "skip"] {
        if let Some(Data::List(tables)) = root.get_mut(list).map(|node| &mut node.data) {
            for node in tables {
                if let Data::Table(table) = &mut node.data {
                    change(table);
                }
            }
        }
    }
}

/// `optimizer.lr = ...` without quotes is a nested table; it means the same as `"optimizer.lr" = ...`.
fn flat(table: Table) -> Table {
    fn collect(path: &str, table: Table, into: &mut Table) {
        for (name, node) in table {
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            let is_section = matches!(shape::experiment().at(path.split('.')), Some(Shape::Table(_)));
            match node.data {
                Data::Table(inner) if is_section => collect(&path, inner, into),
                data => drop(into.insert(path, Node { data, ..node })),
            }
        }
    }
    let mut flat = Table::new();
    collect("", table, &mut flat);
    flat
}

/// The keys under `parameters` and `trials`.
fn varied(root: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    let mut add = |node: &Node| {
        if let Data::Table(table) = &node.data {
            keys.extend(table.keys().cloned());
        }
    };
    root.get("parameters").into_iter().for_each(&mut add);
    if let Some(Data::List(trials)) = root.get("trials").map(|node| &node.data) {
        trials.iter().for_each(&mut add);
    }
    keys
}

/// Whether a key exists and all of its values are valid; reports a problem otherwise.
fn is_right(key: &str, node: &mut Node, report: &mut Report) -> bool {
    let before = report.problems.len();
    if let Some(shape) = known(key, &node.key, report) {
        match &mut node.data {
            Data::Table(range) if !matches!(shape, Shape::Map(_)) => {
                bounds(range, &node.place, key, shape, report)
            }
            Data::List(items) if !is_list(shape) => suit(items, key, shape, report),
            // A list of lists for a key that takes a list; otherwise the value of one trial.
            Data::List(items) if items.iter().all(|item| matches!(item.data, Data::List(_))) => {
                suit(items, key, shape, report);
            }
            _ => suit(std::slice::from_mut(node), key, shape, report),
        }
    }
    report.problems.len() == before
}

fn is_list(shape: &Shape) -> bool {
    match shape {
        Shape::List { .. } => true,
        Shape::Either(shapes) => shapes.iter().any(is_list),
        _ => false,
    }
}

/// The shape of a key that can be varied.
fn known(key: &str, place: &Place, report: &mut Report) -> Option<&'static Shape> {
    let mut shape = shape::experiment();
    let mut path = String::new();
    for part in key.split('.') {
        let inner = match shape {
            Shape::Map(item) => Some(&**item),
            _ => shape.field(part).map(|field| &field.shape),
        };
        match (inner, shape) {
            (Some(inner), _) => shape = inner,
            (None, Shape::Table(fields)) => {
                report.unknown_key(part, place.clone(), fields, &path);
                return None;
            }
            (None, _) => {
                let message = format!("`{path}` has no keys");
                report.problems.push(Problem::new(message, place.clone()).help(format!("vary `{path}`")));
                return None;
            }
        }
        path = if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
    }
    if key == "run.name" {
        let message = "`run.name` cannot be swept: it names the directory of all trials";
        report.problems.push(Problem::new(message, place.clone()).help("omit it"));
        return None;
    }
    if matches!(shape, Shape::Table(_)) {
        let message = format!("`{key}` is a section");
        report
            .problems
            .push(Problem::new(message, place.clone()).help(format!("vary its keys, as \"{key}.KEY\"")));
        return None;
    }
    Some(shape)
}

/// Checks values against the shape of their key; integers become floats where a float is expected.
fn suit(values: &mut [Node], key: &str, shape: &Shape, report: &mut Report) {
    for value in values {
        if let Some(right) = report.conforming_value(value.clone(), shape, key) {
            *value = right;
        }
    }
}

fn bounds(range: &mut Table, place: &Place, key: &str, shape: &Shape, report: &mut Report) {
    let is_number = matches!(shape, Shape::Integer(_) | Shape::Float(_));
    if !is_number {
        let message = format!("`{key}` is {}, so it cannot have a range", shape.words());
        report.problems.push(Problem::new(message, place.clone()).help("list its values, as [..., ...]"));
        return;
    }
    for name in ["min", "max"] {
        if let Some(node) = range.get_mut(name) {
            // Bounds are f64 whatever the type of the key; integers were written as integers.
            let whole = matches!(node.data, Data::Float(value) if value.fract() == 0.0);
            let mut asked = node.clone();
            if let (Data::Float(value), true, Shape::Integer(_)) = (&node.data, whole, shape) {
                asked.data = Data::Integer(*value as i128);
            }
            report.conforming_value(asked, shape, key);
        }
    }
}

/// Conditions must refer to keys that the sweep varies.
fn conditions(node: &Node, varied: &[String], report: &mut Report) {
    let Data::Table(table) = &node.data else { return };
    for (key, condition) in table {
        if !varied.contains(key) {
            let message = format!("`{key}` is not swept");
            let help = match varied {
                [] => "list its values under [sweep.parameters]".to_owned(),
                keys => format!("swept keys: {}", keys.join(", ")),
            };
            report.problems.push(Problem::new(message, condition.key.clone()).help(help));
        }
    }
}

impl Swept {
    /// The layer of one trial, stronger than every other.
    pub fn layer(&self, values: &Values) -> Layer {
        let mut root = Table::new();
        for (key, value) in values {
            let place = self.place_of(key, value);
            let parts = key.split('.').map(|part| (part.to_owned(), place.clone())).collect();
            overrides::put(&mut root, parts, place.clone(), data(value, &place));
        }
        Layer { name: "the sweep's trial".into(), root, base: self.base.clone() }
    }

    /// Where a value was written; for a drawn value, where its range was.
    fn place_of(&self, key: &str, value: &Value) -> Place {
        let in_table = |node: &Node| match &node.data {
            Data::Table(table) => table.get(key).cloned(),
            _ => None,
        };
        let listed = match self.root.get("trials").map(|node| &node.data) {
            Some(Data::List(trials)) => {
                trials.iter().filter_map(in_table).find(|node| json(&node.data) == *value)
            }
            _ => None,
        };
        let candidates = self.root.get("parameters").and_then(in_table);
        let chosen = candidates.as_ref().and_then(|node| match &node.data {
            Data::List(items) => items.iter().find(|item| json(&item.data) == *value),
            _ => None,
        });
        let node = listed.as_ref().or(chosen).or(candidates.as_ref());
        node.map_or_else(|| self.key.clone(), |node| node.place.clone())
    }

    /// The place of a key of the section, or of the section itself.
    fn place(&self, key: &str) -> Place {
        document::find(&self.root, key).map_or_else(|| self.key.clone(), |node| node.key.clone())
    }

    /// Rejects overrides of swept keys: they would have no effect.
    pub fn refuse_overrides(&self, layer: &Layer, report: &mut Report) {
        for key in self.sweep.keys() {
            if let Some(node) = document::find(&layer.root, key) {
                let message = format!("`{key}` is swept, so it cannot be overridden");
                let help = format!("drop the override, or remove the key from [sweep] in {}", self.file());
                report.problems.push(Problem::new(message, node.key.clone()).help(help));
            }
        }
    }

    fn file(&self) -> String {
        self.key.source.name()
    }

    /// Problems of the section by itself.
    fn check(&self, report: &mut Report) {
        let Sweep { method, parameters, trials, num_trials, .. } = &self.sweep;
        let mut wrong = |key: &str, message: &str, help: &str| {
            report.problems.push(Problem::new(message, self.place(key)).help(help));
        };
        match method {
            SweepMethod::List if trials.is_empty() => {
                wrong(
                    "method",
                    "the sweep has no trials",
                    "add [[sweep.trials]] tables with the values of each",
                );
            }
            SweepMethod::List if !parameters.is_empty() => {
                let help = "remove [sweep.parameters], or set method = \"grid\" or \"random\"";
                wrong("parameters", "a list sweep takes its values from [[sweep.trials]]", help);
            }
            SweepMethod::Grid | SweepMethod::Random if !trials.is_empty() => {
                let help = "remove them, or set method = \"list\"";
                wrong("trials", "listed trials need method = \"list\"", help);
            }
            SweepMethod::Grid | SweepMethod::Random if parameters.is_empty() => {
                let help = "add [sweep.parameters], such as \"optimizer.lr\" = [1e-4, 3e-4, 1e-3]";
                wrong("method", "the sweep varies nothing", help);
            }
            SweepMethod::Random if num_trials.is_none() => {
                wrong("method", "a random sweep needs the number of trials", "set sweep.num_trials");
            }
            SweepMethod::Grid | SweepMethod::List if num_trials.is_some() => {
                let help = "remove it, or set method = \"random\"";
                wrong("num_trials", "only random sweeps use `num_trials`", help);
            }
            _ => {}
        }
        for (key, candidates) in parameters {
            let mut wrong = |message: String, help: &str| {
                let place = self.root.get("parameters").and_then(|node| match &node.data {
                    Data::Table(table) => table.get(key).map(|node| node.key.clone()),
                    _ => None,
                });
                let place = place.unwrap_or_else(|| self.key.clone());
                report.problems.push(Problem::new(message, place).help(help));
            };
            match candidates {
                Candidates::Choice(values) if values.is_empty() => {
                    wrong(format!("`{key}` has no values"), "list at least one");
                }
                Candidates::Range(_) if *method == SweepMethod::Grid => {
                    let help = "list its values, or set method = \"random\" and sweep.num_trials";
                    wrong(format!("a grid needs a list of values for `{key}`, not a range"), help);
                }
                Candidates::Range(range) if range.min > range.max => {
                    wrong(format!("the range of `{key}` is empty: min is above max"), "swap min and max");
                }
                Candidates::Range(range) if range.log && range.min <= 0.0 => {
                    let help = "set min above 0, or remove log";
                    wrong(format!("the range of `{key}` is logarithmic, but min is {}", range.min), help);
                }
                _ => {}
            }
        }
        let combinations = parameters.values().map(|candidates| match candidates {
            Candidates::Choice(values) => values.len(),
            Candidates::Range(_) => 1,
        });
        let asked = match method {
            SweepMethod::Grid => combinations.fold(1, usize::saturating_mul),
            SweepMethod::Random => num_trials.unwrap_or(0) as usize,
            SweepMethod::List => trials.len(),
        };
        if asked > MAX_TRIALS {
            let message = format!("the sweep has {asked} trials, more than {MAX_TRIALS}");
            let problem = Problem::new(message, self.place("method"));
            report.problems.push(problem.help("vary less, or draw fewer with method = \"random\""));
        }
    }

    /// Problems and likely mistakes of sweeping over this experiment.
    pub fn check_with(&self, experiment: &Experiment, report: &mut Report) -> Vec<Problem> {
        let Sweep { metric, halving, .. } = &self.sweep;
        let validation = &experiment.dataset.validation;
        let mut wrong = |key: &str, message: String, help: &str| {
            report.problems.push(Problem::new(message, self.place(key)).help(help));
        };
        if metric.is_validation() && validation.fraction == 0.0 && validation.origin().is_none() {
            let message =
                format!("trials cannot be compared by {}: there is no validation text", metric.name());
            wrong("metric", message, "set dataset.validation.fraction above 0, or sweep.metric = \"loss\"");
        }
        let Some(Halving { min_steps, .. }) = halving else { return Vec::new() };
        let steps = experiment.train.steps;
        if experiment.train.epochs.is_some() || self.sweep.keys().contains(&"train.epochs") {
            let message =
                "halving compares trials at steps, but `train.epochs` sets the length of training".to_owned();
            wrong("halving", message, "set train.steps in place of train.epochs, or remove [sweep.halving]");
        } else if *min_steps >= steps {
            let message = format!("the first rung has {min_steps} steps, but a full trial has only {steps}");
            wrong("halving", message, "set sweep.halving.min_steps well below train.steps");
        }
        if self.sweep.keys().contains(&"train.steps") {
            let message = "halving compares trials at equal steps, but `train.steps` is swept".to_owned();
            wrong("halving", message, "remove [sweep.halving], or do not sweep train.steps");
        }
        if experiment.evaluate.patience.is_some() {
            let message =
                "halving already ends trials early, so `evaluate.patience` cannot be set".to_owned();
            wrong("halving", message, "remove [sweep.halving], or evaluate.patience");
        }
        let warmup = self.longest_warmup(experiment);
        if warmup < *min_steps {
            return Vec::new();
        }
        let message = format!(
            "the first rung, at step {min_steps}, lies within a warmup of {warmup} steps: the best trials there are not \
             necessarily the best overall"
        );
        let help = "set sweep.halving.min_steps well above schedule.warmup_steps";
        vec![Problem::new(message, self.place("halving")).help(help)]
    }

    fn longest_warmup(&self, experiment: &Experiment) -> u64 {
        let key = "schedule.warmup_steps";
        let listed = match self.sweep.parameters.get(key) {
            Some(Candidates::Choice(values)) => values.iter().filter_map(Value::as_u64).max(),
            Some(Candidates::Range(range)) => Some(range.max as u64),
            None => self.sweep.trials.iter().filter_map(|trial| trial.get(key)?.as_u64()).max(),
        };
        listed.unwrap_or(experiment.schedule.warmup_steps)
    }
}

impl Condition {
    /// Whether `value` matches.
    pub fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Between(between) => value.as_f64().is_some_and(|number| {
                between.min.is_none_or(|min| number >= min) && between.max.is_none_or(|max| number <= max)
            }),
            Self::OneOf(values) => values.iter().any(|other| equal(other, value)),
            Self::Is(other) => equal(other, value),
        }
    }
}

/// Numbers are equal however they were written.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn json(data: &Data) -> Value {
    match data {
        Data::Table(table) => table.iter().map(|(name, node)| (name.clone(), json(&node.data))).collect(),
        Data::List(items) => items.iter().map(|item| json(&item.data)).collect(),
        Data::Text(text) => Value::from(text.as_str()),
        Data::Integer(integer) => i64::try_from(*integer).map_or(Value::Null, Value::from),
        Data::Float(float) => Number::from_f64(*float).map_or(Value::Null, Value::Number),
        Data::Bool(flag) => Value::from(*flag),
        // No key takes a date.
        Data::Datetime => Value::Null,
    }
}

fn data(value: &Value, place: &Place) -> Data {
    let node = |value: &Value| Node { key: place.clone(), place: place.clone(), data: data(value, place) };
    match value {
        Value::Object(fields) => {
            Data::Table(fields.iter().map(|(name, value)| (name.clone(), node(value))).collect())
        }
        Value::Array(items) => Data::List(items.iter().map(node).collect()),
        Value::String(text) => Data::Text(text.clone()),
        Value::Bool(flag) => Data::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Data::Integer(i128::from(integer)),
            None => Data::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Null => Data::Datetime,
    }
}
