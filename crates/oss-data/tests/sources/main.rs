//! Text sources end to end: local files of every format, their errors, and a misbehaving Hub.

mod fake_hub;
mod hub;
mod hub_failures;
mod local;
mod local_failures;

use std::path::Path;

use oss_config::error::ErrorReport;
use oss_config::{Dataset, Origin};
use oss_data::sources::{HubConfig, ReadOptions, SourceFiles, Watch};

/// Options that touch nothing outside `folder`.
fn options(folder: &Path) -> ReadOptions {
    let hub = HubConfig::from_variables(|name| (name == "HF_HOME").then(|| folder.display().to_string()));
    ReadOptions { hub, ..ReadOptions::training(&Dataset::default(), None) }
}

/// The documents of `patterns`, or the full report of the error.
fn read(patterns: &[String], options: &ReadOptions) -> Result<Vec<String>, String> {
    let resolved = SourceFiles::resolve(&Origin::Files(patterns), options, Watch::quiet());
    let documents = resolved.and_then(|source| source.documents(Watch::quiet()));
    let texts = documents.and_then(|documents| documents.map(|document| Ok(document?.text)).collect());
    texts.map_err(|error| ErrorReport::from(&error).to_string())
}
