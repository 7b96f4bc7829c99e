//! Labels and notes added to a run after it was started.
//!
//! They are stored in the manifest with the experiment's own, in `experiment.run.labels` and `.notes`, so that readers
//! have one place to look. `layers`, which records the origin of every value, marks them as added later. They are
//! therefore kept when the experiment file, which does not contain them, is run again.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Manifest;
use oss_config::Run;

/// The layer of labels and notes that were added later.
const LAYER: &str = "oss-run label";

/// Keys of labels in the experiment file.
const LABELS: &str = "run.labels.";
const NOTES: &str = "run.notes";

impl Manifest {
    /// Labels of the run.
    pub fn labels(&self) -> BTreeMap<String, String> {
        serde_json::from_value(self.experiment["run"]["labels"].clone()).unwrap_or_default()
    }

    /// Notes on the run.
    pub fn notes(&self) -> Option<&str> {
        self.experiment["run"]["notes"].as_str()
    }

    /// Sets or removes a label.
    pub fn set_label(&mut self, name: &str, value: Option<&str>) {
        let mut labels = self.labels();
        match value {
            Some(value) => drop(labels.insert(name.to_owned(), value.to_owned())),
            None => drop(labels.remove(name)),
        }
        let labels = labels.into_iter().map(|(name, value)| (name, Value::from(value)));
        self.experiment["run"]["labels"] = Value::Object(labels.collect());
        self.layers.insert(format!("{LABELS}{name}"), LAYER.to_owned());
    }

    /// Sets or removes the notes.
    pub fn set_notes(&mut self, notes: Option<&str>) {
        self.experiment["run"]["notes"] = notes.map_or(Value::Null, Value::from);
        self.layers.insert(NOTES.to_owned(), LAYER.to_owned());
    }

    /// Whether `key` was set or removed after the run was started.
    pub fn is_marked(&self, key: &str) -> bool {
        self.layers.get(key).is_some_and(|layer| layer == LAYER)
    }

    /// Applies the labels and notes to an experiment, except for the keys that `told` reports as just set.
    pub fn mark(&self, run: &mut Run, told: impl Fn(&str) -> bool) {
        let known = self.labels();
        for key in self.layers.keys().filter(|key| self.is_marked(key) && !told(key)) {
            if let Some(name) = key.strip_prefix(LABELS) {
                match known.get(name) {
                    Some(value) => drop(run.labels.insert(name.to_owned(), value.clone())),
                    None => drop(run.labels.remove(name)),
                }
            } else if key == NOTES {
                run.notes = self.notes().map(str::to_owned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn marked() -> Manifest {
        let mut manifest =
            Manifest::new("aa", "tiny", json!({"run": {"labels": {"draft": "yes", "set": "a"}}}));
        manifest.set_label("draft", None);
        manifest.set_label("good", Some("very"));
        manifest.set_notes(Some("look again"));
        manifest
    }

    #[test]
    fn marks_are_stored_among_the_experiments_own() {
        let manifest = marked();
        assert_eq!(
            manifest.experiment,
            json!({"run": {"labels": {"good": "very", "set": "a"}, "notes": "look again"}})
        );
        let mut empty = Manifest::new("aa", "tiny", Value::Null);
        empty.set_label("a.b", Some("c"));
        assert_eq!(empty.labels(), BTreeMap::from([("a.b".to_owned(), "c".to_owned())]));
    }

    #[test]
    fn running_the_same_file_again_keeps_marks() {
        let file = Run {
            labels: [("draft", "yes"), ("set", "b")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..Run::default()
        };
        let mut run = file.clone();
        marked().mark(&mut run, |_| false);
        assert_eq!(
            run.labels,
            [("good", "very"), ("set", "b")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
        assert_eq!(run.notes.as_deref(), Some("look again"));
        let mut told = Run { notes: Some("new".to_owned()), ..file };
        marked().mark(&mut told, |key| key == "run.notes");
        assert_eq!(told.notes.as_deref(), Some("new"), "an explicit setting wins");
    }
}
