//! The keys of the experiment file with their descriptions and values, for completion.

use super::{
    DEVICES, TOKENIZERS,
    key_path::join,
    shape::{self, Shape},
};

/// A key that `--set` accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownKey {
    /// The key, such as `train.steps`.
    pub key: String,
    /// What it means.
    pub description: String,
    /// Its values with their meanings, if it accepts only a few.
    pub values: Vec<(String, String)>,
}

/// Every key of the experiment file, in the order of the reference. The keys of a table in a list have no name.
pub fn known_keys() -> Vec<KnownKey> {
    let mut keys = Vec::new();
    collect(shape::experiment(), "", &mut keys);
    keys
}

fn collect(shape: &Shape, path: &str, into: &mut Vec<KnownKey>) {
    let Shape::Table(fields) = shape else { return };
    for field in fields {
        let key = join(path, &field.name);
        if !matches!(field.shape, Shape::Table(_)) {
            let (description, values) = (field.description.replace('\n', " "), values(&key, &field.shape));
            into.push(KnownKey { key: key.clone(), description, values });
        }
        collect(field.shape.table(), &key, into);
    }
}

fn values(key: &str, shape: &Shape) -> Vec<(String, String)> {
    let plain = |name: &&str| ((*name).to_owned(), String::new());
    match (key, shape) {
        ("dataset.tokenizer", Shape::Text) => TOKENIZERS.iter().map(plain).collect(),
        ("train.device", _) => DEVICES.iter().map(plain).collect(),
        (_, Shape::Bool) => ["true", "false"].iter().map(plain).collect(),
        (_, Shape::Choice(choices)) => {
            choices.iter().map(|choice| (choice.name.clone(), choice.description.clone())).collect()
        }
        (_, Shape::Either(shapes)) => shapes.iter().flat_map(|shape| values(key, shape)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_values() {
        let keys = known_keys();
        let values = |key: &str| -> Vec<&str> {
            let known = keys.iter().find(|known| known.key == key).unwrap_or_else(|| panic!("no {key}"));
            assert!(!known.description.is_empty(), "{key}");
            known.values.iter().map(|(name, _)| name.as_str()).collect()
        };
        assert_eq!(values("optimizer.kind"), ["adamw", "muon"]);
        assert_eq!(values("run.deterministic"), ["true", "false"]);
        assert_eq!(values("train.device"), DEVICES);
        assert_eq!(values("dataset.tokenizer"), TOKENIZERS);
        assert_eq!(values("dataset.tokenizer.train"), [""; 0]);
        assert_eq!(values("train.steps"), [""; 0]);
        assert!(keys.iter().all(|known| known.key != "train" && !known.key.starts_with("dataset.source.")));
    }
}
