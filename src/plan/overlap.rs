//! Validation text that is also training text.

use std::collections::BTreeSet;

use serde::Serialize;

use super::graph::Graph;
use super::keys::Key;
use oss_data::Prepared;
use oss_data::sources::Identity;

/// How much of a separate validation text is also in the training text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// What is counted.
    pub unit: OverlapUnit,
    /// Their number in both texts.
    pub shared: u64,
    /// Their number in the validation text.
    pub total: u64,
}

/// What an [`Overlap`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlapUnit {
    /// Files, before they are prepared.
    Files,
    /// Documents, once they are.
    Documents,
}

impl Overlap {
    /// The overlap of the texts of `graph`; `None` if there is none, or if validation has no text of its own.
    pub fn of(graph: &Graph) -> Option<Self> {
        let found = Self::of_documents(graph).or_else(|| Self::of_files(graph))?;
        (found.shared > 0).then_some(found)
    }

    fn of_documents(graph: &Graph) -> Option<Self> {
        let open = |key: &Key| Prepared::open(&graph.runs.prepared(&key.0)).ok();
        let validation = open(&graph.corpus().prepared_validation().ok()??)?;
        let training: Vec<Prepared> =
            graph.corpus().prepared_sources().ok()?.iter().map(open).collect::<Option<_>>()?;
        let shared = validation.validation_documents_in(&training)?;
        Some(Self { unit: OverlapUnit::Documents, shared, total: validation.index().validation.documents })
    }

    fn of_files(graph: &Graph) -> Option<Self> {
        let validation = files(&graph.inputs.validation.as_ref()?.identity);
        let training: BTreeSet<String> =
            graph.inputs.sources.iter().flat_map(|source| files(&source.identity)).collect();
        let shared = validation.intersection(&training).count() as u64;
        Some(Self { unit: OverlapUnit::Files, shared, total: validation.len() as u64 })
    }

    /// The problem, as a sentence.
    pub fn message(&self) -> String {
        let unit = match self.unit {
            OverlapUnit::Files => "file",
            OverlapUnit::Documents => "document",
        };
        let Self { shared, total, .. } = self;
        let (s, is) = if *total == 1 { ("", "is") } else { ("s", if *shared == 1 { "is" } else { "are" }) };
        format!(
            "{shared} of {total} validation {unit}{s} {is} also in the training text, so the validation loss says less \
             about other text"
        )
    }
}

/// What to do about it.
pub const FIX: &str = "remove them from one of the texts, or leave [dataset.validation] to `fraction`, which holds out \
                       documents of the training text";

/// The contents of a source, by digest or by name in a repository.
fn files(identity: &Identity) -> BTreeSet<String> {
    match identity {
        Identity::Builtin { .. } => BTreeSet::new(),
        Identity::Files { files } => files.iter().map(|file| file.blake3.clone()).collect(),
        Identity::Hub { repo, commit, files } => {
            files.iter().map(|file| format!("{repo}@{commit}/{file}")).collect()
        }
    }
}
