//! `[dataset]`: which text, cut how, with which tokenizer.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tokenizers that go by a name.
pub const TOKENIZERS: [&str; 6] =
    ["o200k_harmony", "o200k_base", "cl100k_base", "p50k_base", "r50k_base", "bytes"];

/// The training text: one origin (`builtin`, `files` or `hub`), or a mix under `[[dataset.source]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dataset {
    /// A corpus that the program generates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// Local files or glob patterns, from the folder of the file that names them: `.txt`, `.jsonl` (also `.gz`, `.zst`) and `.parquet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// A dataset repository of the Hugging Face hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<Hub>,
    /// Field (jsonl) or column (parquet) that holds the text.
    pub text_field: String,
    /// Line that separates documents in `.txt` files; `""` is an empty line.
    pub separator: String,
    /// `o200k_harmony`, another tiktoken encoding (`o200k_base`, `cl100k_base`, `p50k_base`, `r50k_base`),
    /// `bytes`, `{ train = N }` for a byte-pair vocabulary of N entries learnt from the training text,
    /// or the path of a Hugging Face `tokenizer.json`.
    pub tokenizer: TokenizerChoice,
    /// Several sources, mixed by weight; instead of `builtin`, `files` and `hub`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Source>,
    /// Where the validation text comes from.
    pub validation: Validation,
}

impl Default for Dataset {
    fn default() -> Self {
        Self {
            builtin: None,
            files: None,
            hub: None,
            text_field: "text".into(),
            separator: "<|endoftext|>".into(),
            tokenizer: TokenizerChoice::Named("o200k_harmony".into()),
            source: Vec::new(),
            validation: Validation::default(),
        }
    }
}

/// One member of a mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name shown in plans and metrics.
    pub name: String,
    /// Share of the training windows drawn from this source, relative to the other weights.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub weight: f64,
    /// A corpus that the program generates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// Local files or glob patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// A dataset repository of the Hugging Face hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<Hub>,
}

fn one() -> f64 {
    1.0
}

/// Where validation tokens come from: a share of the training documents, or a source of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Validation {
    /// Share of the documents, chosen by their hash, that is held out (0 to 0.5); 0 where validation has a source of
    /// its own.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub share: f64,
    /// A corpus that the program generates (with another seed than the training one).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// Local files or glob patterns used for validation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// A dataset repository of the hub used for validation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<Hub>,
}

impl Default for Validation {
    fn default() -> Self {
        Self { share: 0.01, builtin: None, files: None, hub: None }
    }
}

/// Corpora that the program generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Builtin {
    /// Short children's stories, seeded and deterministic.
    Stories,
}

/// Files of a dataset repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// `owner/name` of the dataset.
    pub repo: String,
    /// Branch, tag or commit; it is pinned to a commit when first resolved.
    #[serde(default = "main_branch")]
    pub revision: String,
    /// Files of the repository to read.
    pub files: Vec<String>,
}

fn main_branch() -> String {
    "main".into()
}

/// A tokenizer by name or path, or one to be learnt from the training text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TokenizerChoice {
    /// `o200k_harmony`, `o200k_base`, `cl100k_base`, `p50k_base`, `r50k_base`, `bytes`, or a `tokenizer.json`.
    Named(String),
    /// A byte-pair vocabulary learnt in prepare.
    Train(TrainTokenizer),
}

/// A byte-pair vocabulary learnt from the training text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizer {
    /// Number of entries, the 256 bytes and end-of-text included.
    #[schemars(range(min = 257, max = 1_048_576))]
    pub train: u32,
}

/// A resolved origin of text: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A generated corpus.
    Builtin(Builtin),
    /// Local files or glob patterns, already absolute.
    Files(&'a [String]),
    /// Files of a hub repository.
    Hub(&'a Hub),
}

impl Dataset {
    /// The sources of the training text with their weights; a dataset without a mix is one source named `main`.
    pub fn sources(&self) -> Vec<(&str, f64, Origin<'_>)> {
        let single = origin(self.builtin, &self.files, &self.hub).map(|found| ("main", 1.0, found));
        let mixed = self
            .source
            .iter()
            .filter_map(|s| Some((s.name.as_str(), s.weight, origin(s.builtin, &s.files, &s.hub)?)));
        single.into_iter().chain(mixed).collect()
    }
}

impl Validation {
    /// The validation text's own origin, if it has one.
    pub fn origin(&self) -> Option<Origin<'_>> {
        origin(self.builtin, &self.files, &self.hub)
    }
}

fn origin<'a>(
    builtin: Option<Builtin>,
    files: &'a Option<Vec<String>>,
    hub: &'a Option<Hub>,
) -> Option<Origin<'a>> {
    match (builtin, files, hub) {
        (Some(corpus), _, _) => Some(Origin::Builtin(corpus)),
        (_, Some(patterns), _) => Some(Origin::Files(patterns)),
        (_, _, Some(hub)) => Some(Origin::Hub(hub)),
        _ => None,
    }
}

impl TokenizerChoice {
    /// The path, where the choice is a `tokenizer.json`.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Named(name) if name.ends_with(".json") => Some(PathBuf::from(name)),
            _ => None,
        }
    }
}
