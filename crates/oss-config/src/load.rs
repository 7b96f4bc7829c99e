//! Loads one validated experiment from files, environment and arguments.

use std::{
    env,
    path::{Path, PathBuf},
};

use figment::value::{Dict, Value};

use super::{
    Experiment, ExperimentErrors, Overrides, Provenance, SetBy, Sweep, Values,
    check::{self, Finding},
    document::Place,
    errors::Problem,
    from_inputs,
    key_path::join,
    layers::{self, Files, Layer},
    merge::{self, Merged},
    overrides, paths,
    shape::{self, Shape},
    sweep::Swept,
    validate::Report,
};

/// An experiment with its layers merged and validated, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Every value filled in.
    pub experiment: Experiment,
    /// Which layer set each key.
    pub provenance: Provenance,
    /// Warnings: values that are allowed but look like mistakes, each with its location.
    pub warnings: Vec<String>,
    /// The experiment file as named by the user.
    pub file: PathBuf,
    /// The `[sweep]`, if there is one; the experiment is then what all trials have in common.
    pub sweep: Option<Sweep>,
}

/// Loads an experiment file with its layers and validates all of it. Nothing is downloaded or allocated.
///
/// Layers, weakest first: the types' defaults, the files named by `extends`, the file itself, `OSS_RUN__SECTION__KEY`
/// variables, `--set`. A preset's fields belong to the layer that names it.
///
/// # Errors
/// Returns all problems at once: files that cannot be read or parsed, unknown keys, wrong types, values out of bounds,
/// and combinations that cannot work.
pub fn load(file: &Path, overrides: &Overrides) -> Result<Resolved, ExperimentErrors> {
    let mut report = Report::default();
    let variables = if overrides.environment { variables(&mut report) } else { Vec::new() };
    load_with(file, overrides, variables, None, report)
}

/// Like [`load`], for one trial of a file with a `[sweep]`; the trial's values are the strongest layer.
///
/// # Errors
/// As for [`load`].
pub fn load_trial(file: &Path, overrides: &Overrides, values: &Values) -> Result<Resolved, ExperimentErrors> {
    let mut report = Report::default();
    let variables = if overrides.environment { variables(&mut report) } else { Vec::new() };
    load_with(file, overrides, variables, Some(values), report)
}

/// [`load`] with the given environment.
pub(super) fn load_with(
    file: &Path,
    overrides: &Overrides,
    variables: Vec<(String, String)>,
    trial: Option<&Values>,
    mut report: Report,
) -> Result<Resolved, ExperimentErrors> {
    let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let Files { mut layers, source, swept } = layers::of_file(file, &mut report);
    layers.push(overrides::environment(variables.into_iter(), &here, &mut report));
    overrides::unset(&overrides.unset, &mut layers, &mut report);
    layers.push(overrides::arguments(&overrides.set, &here, &mut report));
    if let Some(swept) = &swept {
        layers.iter().rev().take(2).for_each(|layer| swept.refuse_overrides(layer, &mut report));
        layers.extend(trial.map(|values| swept.layer(values)));
    }
    let start = source.map(|source| Place { span: 0..0, source });
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let (experiment, provenance, warnings) = resolve(layers, stem, start, swept.as_ref(), report)?;
    let sweep = swept.map(|swept| swept.sweep);
    Ok(Resolved { experiment, provenance, warnings, file: file.to_owned(), sweep })
}

impl Experiment {
    /// Loads an experiment from text, such as a manifest's; relative paths start from the working directory.
    ///
    /// # Errors
    /// As for [`load`]; `name` identifies the text in problems.
    pub fn from_toml_str(name: &str, text: &str) -> Result<Self, ExperimentErrors> {
        let mut report = Report::default();
        let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let (layers, source) = layers::of_text(Path::new(name), text.to_owned(), &here, &mut report);
        let start = Some(Place { span: 0..0, source });
        resolve(layers, None, start, None, report).map(|(experiment, _, _)| experiment)
    }
}

fn resolve(
    mut layers: Vec<Layer>,
    stem: Option<String>,
    start: Option<Place>,
    swept: Option<&Swept>,
    mut report: Report,
) -> Result<(Experiment, Provenance, Vec<String>), ExperimentErrors> {
    for layer in &mut layers {
        paths::resolve(&mut layer.root, &layer.base);
    }
    let merged = merge::merge(layers);
    let mut values = match merged.values() {
        Ok(values) => values,
        Err(problem) => {
            report.problems.push(problem);
            return Err(ExperimentErrors::new(report.problems));
        }
    };
    complete(&mut values, shape::experiment(), "", &merged, &start, &mut report);
    let provenance = provenance(&values, &merged);
    let mut experiment: Experiment = match Value::from(values).deserialize() {
        Ok(experiment) => experiment,
        Err(error) => {
            report.problems.push(merge::problem(&error));
            return Err(ExperimentErrors::new(report.problems));
        }
    };
    let provenance = derive_values(&mut experiment, provenance, stem);
    if experiment.train.epochs.is_some() && provenance.of("train.steps").is_explicit() {
        let place = merged.node("train.epochs").map(|node| node.place.clone()).or(start.clone());
        let message = "`train.epochs` and `train.steps` both set the length of training";
        report.problems.push(problem_at(message.into(), place).help("remove one of them"));
    }
    let slips = swept.map(|swept| swept.check_with(&experiment, &mut report)).unwrap_or_default();
    let mut warnings: Vec<String> = slips.iter().map(Problem::to_string).collect();
    for finding in check::findings(&experiment) {
        let is_broken = finding.keys.iter().any(|key| report.is_broken(key));
        if is_broken || from_inputs::is_open(&finding, &experiment, &provenance) {
            continue;
        }
        let problem = located(&finding, &provenance, &merged, &start);
        if finding.is_warning {
            warnings.push(problem.to_string());
        } else {
            report.problems.push(problem);
        }
    }
    if report.problems.is_empty() {
        Ok((experiment, provenance, warnings))
    } else {
        Err(ExperimentErrors::new(report.problems))
    }
}

/// Reports required keys that no layer set, and fills them in so that the rest can be parsed and checked.
fn complete(
    values: &mut Dict,
    shape: &Shape,
    path: &str,
    merged: &Merged,
    start: &Option<Place>,
    report: &mut Report,
) {
    let Shape::Table(fields) = shape else { return };
    for field in fields {
        let inner_path = join(path, &field.name);
        match (values.get_mut(&field.name), &field.shape) {
            (None, _) if field.required => {
                if !report.is_broken(&inner_path) {
                    let message = format!("`{path}` is missing `{}`", field.name);
                    let place = nearest_place(path, merged).or(start.clone());
                    let fix = format!("add {} = {}", field.name, example(&field.shape));
                    report.problems.push(problem_at(message, place).help(fix));
                }
                report.broken.insert(inner_path);
                values.insert(field.name.clone(), placeholder(&field.shape));
            }
            (Some(Value::Dict(_, inner)), shape) => {
                complete(inner, shape.table(), &inner_path, merged, start, report);
            }
            (Some(Value::Array(_, items)), Shape::List { item, .. }) => {
                for (index, value) in items.iter_mut().enumerate() {
                    if let Value::Dict(_, inner) = value {
                        complete(inner, item, &format!("{inner_path}[{index}]"), merged, start, report);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A value of the right type for a key that is reported as missing anyway.
fn placeholder(shape: &Shape) -> Value {
    match shape {
        Shape::List { .. } => Value::from(Vec::<Value>::new()),
        Shape::Integer(bounds) => Value::from(bounds.min.unwrap_or_default() as i64),
        Shape::Float(_) => Value::from(1.0),
        _ => Value::from(""),
    }
}

fn example(shape: &Shape) -> &'static str {
    match shape {
        Shape::List { .. } => "[\"...\"]",
        Shape::Integer(_) | Shape::Float(_) => "...",
        _ => "\"...\"",
    }
}

fn provenance(values: &Dict, merged: &Merged) -> Provenance {
    let mut provenance = Provenance::default();
    leaves(values, shape::experiment(), &mut Vec::new(), merged, &mut provenance);
    provenance
}

/// Records the origin of every scalar and list, and of every unset key.
fn leaves<'a>(
    values: &'a Dict,
    shape: &Shape,
    keys: &mut Vec<&'a str>,
    merged: &Merged,
    into: &mut Provenance,
) {
    let path = keys.iter().fold(String::new(), |path, key| join(&path, key));
    for (name, value) in values {
        let inner = shape.field(name).map_or(&Shape::Text, |field| &field.shape);
        keys.push(name);
        match value {
            Value::Dict(_, table) => leaves(table, inner.table(), keys, merged, into),
            value => into.set(join(&path, name), merged.set_by(value.tag(), keys)),
        }
        keys.pop();
    }
    if let Shape::Table(fields) = shape {
        for field in fields.iter().filter(|field| !values.contains_key(&field.name)) {
            into.set(join(&path, &field.name), SetBy::Default);
        }
    }
}

/// Derives values from others: names the run after its file, removes the preset, and sets the held-out fraction to 0 if
/// validation has its own source.
fn derive_values(
    experiment: &mut Experiment,
    mut provenance: Provenance,
    stem: Option<String>,
) -> Provenance {
    if experiment.run.name.is_none() && stem.is_some() {
        experiment.run.name = stem;
        provenance.set("run.name".into(), SetBy::FileName);
    }
    experiment.model.preset = None;
    let validation = &mut experiment.dataset.validation;
    if validation.origin().is_some() && !provenance.of("dataset.validation.fraction").is_explicit() {
        validation.fraction = 0.0;
    }
    provenance
}

/// A finding, located at the first of its keys that was written explicitly.
fn located(finding: &Finding, provenance: &Provenance, merged: &Merged, start: &Option<Place>) -> Problem {
    let written = finding.keys.iter().find_map(|key| match provenance.of(key) {
        SetBy::Preset { .. } => merged.node("model.preset"),
        _ => merged.node(key),
    });
    let around = || finding.keys.iter().find_map(|key| nearest_place(key, merged));
    let place = written.map(|node| node.place.clone()).or_else(around).or(start.clone());
    problem_at(finding.message.clone(), place).help(finding.fix.clone())
}

fn problem_at(message: String, place: Option<Place>) -> Problem {
    match place {
        Some(place) => Problem::new(message, place),
        None => Problem::without_place(message),
    }
}

/// The key of the innermost written table around `path`.
fn nearest_place(path: &str, merged: &Merged) -> Option<Place> {
    let mut path = path;
    loop {
        if let Some(node) = merged.node(path) {
            return Some(node.key.clone());
        }
        path = &path[..path.rfind('.')?];
    }
}

fn variables(report: &mut Report) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (name, value) in env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(overrides::PREFIX)) else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name.to_owned(), value)),
            Err(_) => {
                let message = format!("environment variable {name} is not UTF-8");
                report.problems.push(Problem::without_place(message).help("set it again, or unset it"));
            }
        }
    }
    variables
}
