//! What of an experiment is worth reading: the values that are not the defaults, and those in which runs differ.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::experiment::Experiment;

/// A value that is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, such as `optimizer.lr`.
    pub key: String,
    /// The value, as JSON.
    pub value: String,
    /// The default, as JSON; none where the key is unset unless somebody sets it.
    pub default: Option<String>,
    /// Who set it.
    pub set_by: String,
}

/// The values of the resolved `experiment` that differ from the defaults; `layers` says who set them.
pub fn settings(experiment: &Value, layers: &BTreeMap<String, String>) -> Vec<Setting> {
    let defaults = serde_json::to_value(Experiment::default()).map(|value| flat(&value)).unwrap_or_default();
    let set_by = |key: &str| {
        let mut path = key;
        loop {
            if let Some(layer) = layers.get(path) {
                return layer.clone();
            }
            match path.rsplit_once('.') {
                Some((above, _)) => path = above,
                // Nobody wrote it down: it followed from what is written, as the vocabulary does from the tokenizer.
                None => return "derived".to_owned(),
            }
        }
    };
    flat(experiment)
        .into_iter()
        .filter(|(key, value)| defaults.get(key) != Some(value))
        .map(|(key, value)| Setting {
            value: value.to_string(),
            default: defaults.get(&key).map(Value::to_string),
            set_by: set_by(&key),
            key,
        })
        .collect()
}

/// The keys in which `experiments` differ, each with the value in every one of them; none where it is unset.
pub fn differences(experiments: &[&Value]) -> Vec<(String, Vec<Option<String>>)> {
    let flat: Vec<BTreeMap<String, Value>> = experiments.iter().map(|experiment| flat(experiment)).collect();
    let mut keys: Vec<&String> = flat.iter().flat_map(BTreeMap::keys).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .filter(|key| flat.iter().any(|values| values.get(*key) != flat[0].get(*key)))
        .map(|key| (key.clone(), flat.iter().map(|values| values.get(key).map(Value::to_string)).collect()))
        .collect()
}

/// Every value under its dotted key; lists are values, and what is null is unset.
pub fn flat(value: &Value) -> BTreeMap<String, Value> {
    fn collect(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    collect(&path, value, into);
                }
            }
            Value::Null => {}
            value => drop(into.insert(path.to_owned(), value.clone())),
        }
    }
    let mut values = BTreeMap::new();
    collect("", value, &mut values);
    values
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_what_differs_from_the_defaults_and_who_set_it() {
        let mut experiment = serde_json::to_value(Experiment::default()).unwrap();
        experiment["optimizer"]["lr"] = json!(0.125);
        experiment["dataset"]["tokenizer"] = json!({"train": 512});
        experiment["model"]["vocab_size"] = json!(512);
        let layers = BTreeMap::from([
            ("optimizer.lr".to_owned(), "--set optimizer.lr=0.125".to_owned()),
            ("dataset.tokenizer".to_owned(), "a.toml:3:1".to_owned()),
        ]);
        let shown: Vec<String> = settings(&experiment, &layers)
            .iter()
            .map(|setting| format!("{} = {} ({})", setting.key, setting.value, setting.set_by))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        dataset.tokenizer.train = 512 (a.toml:3:1)
        model.vocab_size = 512 (derived)
        optimizer.lr = 0.125 (--set optimizer.lr=0.125)
        ");
    }

    #[test]
    fn runs_differ_where_a_value_is_another_or_missing() {
        let a = json!({"run": {"seed": 0, "notes": null}, "train": {"steps": 5}});
        let b = json!({"run": {"seed": 1, "notes": "x"}, "train": {"steps": 5}});
        let value = |text: &str| Some(text.to_owned());
        assert_eq!(
            differences(&[&a, &b]),
            [
                ("run.notes".to_owned(), vec![None, value("\"x\"")]),
                ("run.seed".to_owned(), vec![value("0"), value("1")]),
            ]
        );
        assert_eq!(differences(&[&a, &a]), []);
    }
}
