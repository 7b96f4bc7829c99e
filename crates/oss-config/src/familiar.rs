//! Key names from other trainers, and from earlier versions of this program.
//!
//! None of them is accepted. They improve the suggestion for an unknown key where spelling alone would find nothing:
//! `learning_rate` is far from `lr`.

mod names;

use names::{FAMILIAR, SECTIONS, WORDS};
use strsim::osa_distance;

/// What an unknown name was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One of these keys, as full paths.
    Keys(&'static [&'static str]),
    /// Something that is expressed differently here.
    Advice(&'static str),
}

/// What `name`, a key of the table at `path`, means elsewhere.
pub(super) fn meaning_of(name: &str, path: &str) -> Option<Meaning> {
    let name = name.to_lowercase().replace('-', "_");
    let full = super::key_path::join(path, &name);
    let sections = if path.is_empty() { SECTIONS } else { &[] };
    let mut all = sections.iter().chain(FAMILIAR);
    let is_listed = |names: &str| names.split(' ').any(|listed| listed == full || listed == name);
    all.find(|(names, _)| is_listed(names)).map(|(_, meaning)| *meaning)
}

/// What a misspelt name means elsewhere: `lerning_rate`.
pub(super) fn nearest_meaning(name: &str) -> Option<Meaning> {
    let name = name.to_lowercase().replace('-', "_");
    let names =
        FAMILIAR.iter().flat_map(|(names, meaning)| names.split(' ').map(move |listed| (listed, meaning)));
    // In a short name, a letter or two make another word.
    let near = names
        .filter(|(listed, _)| listed.len() > 7)
        .map(|(listed, meaning)| (osa_distance(&name, listed), meaning))
        .filter(|(distance, _)| *distance <= 2);
    near.min_by_key(|(distance, _)| *distance).map(|(_, meaning)| *meaning)
}

/// The value of `valid` that `word` means elsewhere.
pub(super) fn meant_word<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let (_, ours) = WORDS.iter().find(|(words, _)| words.split(' ').any(|listed| listed == word))?;
    valid.into_iter().find(|valid| valid == ours)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Meaning::Keys;
    use super::*;
    use crate::shape;

    #[test]
    fn every_name_maps_to_an_existing_key_and_is_not_one() {
        let exists = |path: &str| {
            let (shape, path) = match path.strip_prefix("sweep.") {
                Some(inner) => (shape::sweep(), inner),
                None => (shape::experiment(), path),
            };
            shape.at(path.split('.')).is_some()
        };
        let mut seen = BTreeSet::new();
        for (names, meaning) in SECTIONS.iter().chain(FAMILIAR) {
            for name in names.split(' ') {
                assert!(seen.insert(name), "{name} is listed twice");
                assert!(!name.contains('.') || !exists(name), "{name} is a key");
            }
            if let Keys(keys) = meaning {
                keys.iter().for_each(|key| assert!(exists(key), "{key} is not a key"));
            }
        }
    }

    #[test]
    fn paths_apply_in_place_and_names_everywhere() {
        assert_eq!(meaning_of("weights", "train"), Some(Keys(&["train.param_dtype"])));
        assert_eq!(meaning_of("weights", "model"), None);
        assert_eq!(meaning_of("parallel", "sweep"), None);
        assert_eq!(meaning_of("Learning-Rate", "train"), Some(Keys(&["optimizer.lr"])));
        assert_eq!(meant_word("BFloat16", ["f32", "bf16"]), Some("bf16"));
        assert_eq!(meant_word("bfloat16", ["f32"]), None);
    }
}
