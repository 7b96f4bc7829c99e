//! What to call each run on a page of several: by what differs between them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::configuration::differences;
use crate::sweep::{Results, TrialResult};
use oss_config::Values;
use oss_runs::run_dir::Manifest;

/// Values in a name; the table of differences has them all.
const MOST: usize = 4;

/// Keys that are no settings: the first is the name of the run's folder, the second is written as `label=value`.
const NAME: &str = "run.name";
const LABELS: &str = "run.labels";
const NOTES: &str = "run.notes";

/// What distinguishes a run.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The names of its folders: `name/id`.
    pub label: &'a str,
    /// Its manifest.
    pub manifest: &'a Manifest,
}

/// A name for each run: its labels and values that others do not share, such as `optimizer.lr=3e-4`, after the name of
/// its experiment if there are several. Runs that cannot be told apart by these also have their id.
pub fn names(runs: &[Known<'_>]) -> Vec<String> {
    let [_, _, ..] = runs else { return runs.iter().map(|run| run.label.to_owned()).collect() };
    let experiments: Vec<&Value> = runs.iter().map(|run| &run.manifest.experiment).collect();
    let mut differing = differences(&experiments);
    differing.retain(|(key, _)| ![NAME, LABELS, NOTES].contains(&key.as_str()));
    // What follows from other values, such as the fields of a preset, tells less than those.
    let was_set = |key: &str| runs.iter().any(|run| was_set(run.manifest, key));
    if differing.iter().any(|(key, _)| was_set(key)) {
        differing.retain(|(key, _)| was_set(key));
    }
    let folders: Vec<&str> =
        runs.iter().map(|run| run.label.rsplit_once('/').map_or("", |(name, _)| name)).collect();
    let in_one = folders.iter().all(|name| *name == folders[0]);
    let labels: Vec<BTreeMap<String, String>> = runs.iter().map(|run| run.manifest.labels()).collect();
    let is_shared = |label: (&String, &String)| labels.iter().all(|all| all.get(label.0) == Some(label.1));
    let mut names: Vec<String> = (0..runs.len())
        .map(|run| {
            let own = labels[run].iter().filter(|label| !is_shared(*label));
            let mut parts: Vec<String> = own.map(|(label, value)| format!("{label}={value}")).collect();
            let values = differing.iter().map(|(key, values)| match &values[run] {
                Some(value) => format!("{key}={}", brief(value)),
                None => format!("{key} unset"),
            });
            parts.extend(values);
            let name = if in_one { None } else { Some(folders[run].to_owned()) };
            name.into_iter().chain(shortened(parts)).collect::<Vec<_>>().join(": ")
        })
        .collect();
    let is_taken: Vec<bool> =
        names.iter().map(|name| names.iter().filter(|other| *other == name).count() > 1).collect();
    for ((name, run), _) in names.iter_mut().zip(runs).zip(is_taken).filter(|(_, is_taken)| *is_taken) {
        *name = if name.is_empty() { run.label.to_owned() } else { format!("{name} ({})", run.label) };
    }
    names
}

/// The name of a trial: its number, and its values that others do not share.
pub fn trial_name(sweep: &Results, trial: &TrialResult) -> String {
    let varies = |key: &str| sweep.trials.iter().any(|other| other.values.get(key) != trial.values.get(key));
    let value = |(key, value): (&String, &Value)| format!("{key}={}", brief(value));
    let values: &Values = &trial.values;
    let parts = values.iter().filter(|(key, _)| varies(key)).map(value).collect();
    let number = format!("trial {}", trial.trial);
    std::iter::once(number).chain(shortened(parts)).collect::<Vec<_>>().join(": ")
}

/// Whether a value of the experiment was written by someone.
fn was_set(manifest: &Manifest, key: &str) -> bool {
    let inside = format!("{key}.");
    let of_key = |layer: &String| layer == key || layer.starts_with(&inside);
    manifest.layers.iter().any(|(layer, by)| of_key(layer) && !by.starts_with("preset "))
}

fn shortened(mut parts: Vec<String>) -> Option<String> {
    if parts.len() > MOST {
        parts.truncate(MOST);
        parts.push("…".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// A value in few characters: `3e-4` rather than `0.0003`, text without quotes.
fn brief(value: &Value) -> String {
    match (value, value.as_f64()) {
        (Value::String(text), _) => text.clone(),
        (_, Some(number)) if value.is_f64() => {
            let (plain, scientific) = (number.to_string(), format!("{number:e}"));
            if scientific.len() + 1 < plain.len() { scientific } else { plain }
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(experiment: Value, set: &[&str]) -> Manifest {
        let mut manifest = Manifest::new("aa", "tiny", experiment);
        manifest.layers.extend(set.iter().map(|key| ((*key).to_owned(), format!("--set {key}"))));
        manifest
    }

    fn named(runs: &[(&str, Manifest)]) -> Vec<String> {
        let known: Vec<Known> = runs.iter().map(|(label, manifest)| Known { label, manifest }).collect();
        names(&known)
    }

    #[test]
    fn one_run_has_the_name_of_its_folder() {
        assert_eq!(named(&[("tiny/aa", run(json!({}), &[]))]), ["tiny/aa"]);
    }

    #[test]
    fn runs_are_called_by_what_was_set_differently() {
        let lr = |lr: f64, decay: u64| {
            run(
                json!({"optimizer": {"lr": lr}, "schedule": {"decay_steps": decay}, "run": {"seed": 1}}),
                &["optimizer.lr"],
            )
        };
        let runs = [("tiny/aa", lr(3e-4, 7)), ("tiny/bb", lr(0.02, 8))];
        assert_eq!(named(&runs), ["optimizer.lr=3e-4", "optimizer.lr=0.02"]);
        let runs = [("tiny/aa", lr(3e-4, 7)), ("other/bb", lr(3e-4, 7))];
        assert_eq!(named(&runs), ["tiny", "other"]);
    }

    #[test]
    fn labels_come_first_and_many_values_are_cut() {
        let wide = |value: u64, labels: Value| {
            let train: serde_json::Map<_, _> =
                "abcdef".chars().map(|key| (key.into(), json!(value))).collect();
            run(json!({"train": train, "run": {"labels": labels}}), &[])
        };
        let runs = [
            ("tiny/aa", wide(1, json!({"who": "ann", "why": "test"}))),
            ("tiny/bb", wide(2, json!({"why": "test"}))),
        ];
        let names =
            ["who=ann, train.a=1, train.b=1, train.c=1, …", "train.a=2, train.b=2, train.c=2, train.d=2, …"];
        assert_eq!(named(&runs), names);
    }

    #[test]
    fn runs_that_differ_in_nothing_keep_their_ids() {
        let runs = [("tiny/aa", run(json!({}), &[])), ("tiny/aa-2", run(json!({}), &[]))];
        assert_eq!(named(&runs), ["tiny/aa", "tiny/aa-2"]);
        let runs = [
            ("tiny/aa", run(json!({"run": {"seed": 1}}), &[])),
            ("tiny/bb", run(json!({"run": {"seed": 2}}), &[])),
            ("tiny/bb-2", run(json!({"run": {"seed": 2}}), &[])),
        ];
        assert_eq!(named(&runs), ["run.seed=1", "run.seed=2 (tiny/bb)", "run.seed=2 (tiny/bb-2)"]);
    }

    #[test]
    fn values_are_brief() {
        let values = [json!(3e-4), json!(0.0), json!(0.02), json!(1000), json!("adamw"), json!([0.9, 0.95])];
        assert_eq!(values.map(|value| brief(&value)), ["3e-4", "0", "0.02", "1000", "adamw", "[0.9,0.95]"]);
    }
}
