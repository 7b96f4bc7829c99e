//! Corpora that the program generates (`dataset.builtin`).

use crate::Document;
use crate::stories::Stories;
use oss_config::Builtin;

/// Generates the documents of a corpus.
pub trait Generator: Sync {
    /// Version of the generator, raised whenever any document of any seed changes.
    fn version(&self) -> u32;

    /// Mean size of a document, in bytes.
    fn mean_bytes(&self) -> u64;

    /// The text of a document: a pure function of `seed` and `number`. Any number is valid, in any order.
    fn text(&self, seed: u64, number: u64) -> String;
}

fn generator(builtin: Builtin) -> &'static dyn Generator {
    match builtin {
        Builtin::Stories => &Stories,
    }
}

/// Which documents of a corpus to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorpusRange {
    /// Corpora with different seeds have different documents.
    pub seed: u64,
    /// Number of documents, from the first.
    pub documents: u64,
}

impl CorpusRange {
    /// The training text. Its seed is independent of the run's, so that runs with different seeds share prepared data.
    pub const TRAINING: Self = Self { seed: 1, documents: 15_000 };

    /// The validation text.
    pub const VALIDATION: Self = Self { seed: 2, documents: 1_000 };
}

/// A corpus to generate.
#[derive(Clone, Copy, Debug)]
pub struct Corpus {
    /// Its generator.
    pub builtin: Builtin,
    /// Its documents.
    pub range: CorpusRange,
}

impl Corpus {
    /// Version of the generator.
    pub fn version(&self) -> u32 {
        generator(self.builtin).version()
    }

    /// Approximate total size in bytes.
    pub fn approximate_bytes(&self) -> u64 {
        self.range.documents * generator(self.builtin).mean_bytes()
    }

    /// Document `number`; `None` after the last.
    pub fn document(&self, number: u64) -> Option<Document> {
        let Self { builtin, range } = self;
        (number < range.documents).then(|| Document {
            text: generator(*builtin).text(range.seed, number),
            place: format!("built-in {builtin}:{}", number + 1),
        })
    }
}
