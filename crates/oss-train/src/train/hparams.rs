//! A run in TensorBoard's HParams tab.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use oss_config::{Experiment, Preset};
use oss_runs::monitor::{HParam, HParams, tag};
use oss_runs::run_dir::RunDir;

/// Sections whose values are hyperparameters; `log.hparams` can name keys of others.
const SECTIONS: [&str; 5] = ["model", "optimizer", "schedule", "train", "run"];

/// The metrics to compare runs by, with their headings.
const METRICS: [(&str, &str); 5] = [
    ("val_loss", "validation loss"),
    ("loss", "training loss"),
    ("tokens_per_second", "tokens per second"),
    ("val_nats_per_byte", "validation nats per byte"),
    ("peak_memory_bytes", "peak memory in bytes"),
];

/// The run in `run_dir`, with its validation metrics if it `has_validation` text: a column without values says nothing.
pub fn hparams(run_dir: &RunDir, experiment: &Experiment, has_validation: bool) -> Result<HParams> {
    let document = serde_json::to_value(experiment)?;
    let mut values = in_sections(&document);
    let named = &experiment.log.hparams;
    for key in named {
        let value = key.split('.').try_fold(&document, |value, name| value.get(name)).and_then(hparam);
        values.extend(value.map(|value| (key.clone(), value)));
    }
    let (columns, first) = if named.is_empty() {
        (values.keys().cloned().collect(), not_defaults(&values)?)
    } else {
        let named = BTreeSet::from_iter(named.iter().cloned());
        (named.clone(), named)
    };
    let metrics = METRICS.into_iter().filter(|(name, _)| has_validation || !name.starts_with("val_"));
    Ok(HParams {
        row: format!("{}/{}", run_dir.name(), run_dir.id()),
        values,
        columns,
        first,
        metrics: metrics.map(|(name, heading)| (tag(name), heading)).collect(),
    })
}

/// The keys whose values are not defaults: those of the preset that differs least, since a run has no preset, only the
/// fields that it sets.
fn not_defaults(values: &BTreeMap<String, HParam>) -> Result<BTreeSet<String>> {
    let mut least: Option<BTreeSet<String>> = None;
    for preset in Preset::ALL {
        let defaults = Experiment { model: preset.model(), ..Experiment::default() };
        let defaults = in_sections(&serde_json::to_value(defaults)?);
        // Every run has a name and a vocabulary.
        let differs = |(key, value): &(&String, &HParam)| {
            defaults.get(*key) != Some(*value) && !["run.name", "model.vocab_size"].contains(&key.as_str())
        };
        let found: BTreeSet<String> = values.iter().filter(differs).map(|(key, _)| key.clone()).collect();
        if least.as_ref().is_none_or(|least| found.len() < least.len()) {
            least = Some(found);
        }
    }
    Ok(least.unwrap_or_default())
}

/// The numbers, strings and booleans in the sections, by key.
fn in_sections(document: &Value) -> BTreeMap<String, HParam> {
    fn collect(key: &str, value: &Value, into: &mut BTreeMap<String, HParam>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, field)| collect(&format!("{key}.{name}"), field, into));
            }
            Value::Array(_) => {}
            _ => into.extend(hparam(value).map(|value| (key.to_owned(), value))),
        }
    }
    let mut values = BTreeMap::new();
    SECTIONS.iter().for_each(|section| collect(section, &document[section], &mut values));
    values
}

fn hparam(value: &Value) -> Option<HParam> {
    match value {
        Value::Null => None,
        Value::Bool(flag) => Some(HParam::Flag(*flag)),
        Value::Number(number) => number.as_f64().map(HParam::Number),
        Value::String(text) => Some(HParam::Text(text.clone())),
        Value::Array(_) | Value::Object(_) => Some(HParam::Text(value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(experiment: &Experiment, has_validation: bool) -> HParams {
        hparams(&RunDir::new("runs/tiny/0123456789"), experiment, has_validation).unwrap()
    }

    #[test]
    fn named_keys_of_any_section_are_the_columns() {
        let mut experiment = Experiment::default();
        experiment.optimizer.lr = 0.5;
        experiment.log.hparams =
            ["optimizer.betas", "dataset.tokenizer", "train.steps"].map(str::to_owned).into();
        let HParams { row, values, columns, first, metrics } = shown(&experiment, true);
        assert_eq!(row, "tiny/0123456789");
        assert_eq!(Vec::from_iter(&columns), ["dataset.tokenizer", "optimizer.betas", "train.steps"]);
        assert_eq!(first, columns);
        assert_eq!(values["optimizer.betas"], HParam::Text("[0.9,0.95]".into()));
        assert_eq!(values["dataset.tokenizer"], HParam::Text("o200k_harmony".into()));
        assert_eq!(values["optimizer.lr"], HParam::Number(0.5));
        assert!(!values.contains_key("log.every_steps"));
        assert_eq!(metrics[0], ("validation/loss".to_owned(), "validation loss"));
    }

    #[test]
    fn otherwise_all_are_columns_first_those_that_are_not_defaults() {
        let mut experiment = Experiment { model: Preset::Tiny.model(), ..Experiment::default() };
        experiment.model.vocab_size = Some(512);
        experiment.model.num_local_experts = 6;
        experiment.run.name = Some("tiny".into());
        experiment.train.steps = 7;
        let HParams { values, columns, first, metrics, .. } = shown(&experiment, false);
        assert!(values.keys().eq(&columns));
        assert_eq!(Vec::from_iter(first), ["model.num_local_experts", "train.steps"]);
        assert!(metrics.iter().all(|(tag, _)| tag.starts_with("train/")), "{metrics:?}");
    }
}
