//! Differences between the experiments of several runs.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::plan::keys::by_key;

/// The keys in which `experiments` differ, each with its values; `None` where unset.
pub fn differences(experiments: &[&Value]) -> Vec<(String, Vec<Option<Value>>)> {
    let all: Vec<BTreeMap<String, Value>> =
        experiments.iter().map(|experiment| by_key((*experiment).clone())).collect();
    let mut keys: Vec<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .filter(|key| all.iter().any(|values| values.get(*key) != all[0].get(*key)))
        .map(|key| (key.clone(), all.iter().map(|values| values.get(key).cloned()).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changed_and_missing_values_are_differences() {
        let a = json!({"run": {"seed": 0, "notes": null}, "train": {"steps": 5}});
        let b = json!({"run": {"seed": 1, "notes": "x"}, "train": {"steps": 5}});
        assert_eq!(
            differences(&[&a, &b]),
            [
                ("run.notes".to_owned(), vec![None, Some(json!("x"))]),
                ("run.seed".to_owned(), vec![Some(json!(0)), Some(json!(1))]),
            ]
        );
        assert_eq!(differences(&[&a, &a]), []);
    }
}
