//! Completes the values of arguments: runs, experiment files, keys of the experiment file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::CompletionCandidate;
use clap_complete::engine::{ArgValueCompleter, PathCompleter, ValueCompleter};

use super::super::arguments::Cli;
use super::words;
use crate::runs::columns;
use oss_config::{KnownKey, known_keys};
use oss_runs::run_dir::RunsDir;

/// Experiment files.
pub fn experiments() -> ArgValueCompleter {
    ArgValueCompleter::new(
        PathCompleter::file().filter(|path| path.extension().is_some_and(|end| end == "toml")),
    )
}

/// RUN arguments: `last` and names; ids once one is begun, and after `name/`.
pub fn runs() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let Some(typed) = current.to_str() else { return Vec::new() };
        let runs = runs_dir().list().unwrap_or_default();
        let candidate =
            |value: String, about: String| CompletionCandidate::new(value).help(Some(about.into()));
        let mut found = Vec::new();
        if let Some((name, _)) = typed.rsplit_once('/') {
            let of_name = runs.iter().filter(|run| run.name() == name);
            found.extend(of_name.map(|run| candidate(format!("{name}/{}", run.id()), String::new())));
        } else {
            let names: BTreeSet<String> = runs.iter().map(|run| run.name()).collect();
            let last = (!runs.is_empty()).then(|| candidate("last".to_owned(), "the newest run".to_owned()));
            found.extend(last);
            found.extend(names.into_iter().map(|name| candidate(name, "its newest run".to_owned())));
            if !typed.is_empty() {
                found.extend(runs.iter().map(|run| candidate(run.id(), run.name())));
            }
        }
        found.retain(|candidate| candidate.get_value().to_string_lossy().starts_with(typed));
        if found.is_empty() {
            found = PathCompleter::dir().complete(current);
        }
        found
    })
}

/// Names of sweeps.
pub fn sweeps() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let typed = current.to_string_lossy();
        let names = runs_dir().sweeps().unwrap_or_default();
        names.into_iter().filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
    })
}

/// Keys of the experiment file.
pub fn keys() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| sections(&current.to_string_lossy(), ""))
}

/// `KEY=VALUE`, with the values of keys that have few.
pub fn overrides() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let typed = current.to_string_lossy();
        let Some((key, value)) = typed.split_once('=') else { return sections(&typed, "=") };
        let values = known_keys().into_iter().find(|known| known.key == key).map(|known| known.values);
        let fitting = values.into_iter().flatten().filter(|(name, _)| name.starts_with(value));
        fitting.map(|(name, about)| described(format!("{key}={name}"), &about)).collect()
    })
}

/// Columns of the list of runs.
pub fn columns() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let typed = current.to_string_lossy();
        let own = columns::names().filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new);
        own.chain(sections(&typed, "")).collect()
    })
}

/// The keys that start with `typed`, up to the end of the next section; `end` follows a whole key.
fn sections(typed: &str, end: &str) -> Vec<CompletionCandidate> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for KnownKey { key, description, .. } in
        known_keys().into_iter().filter(|known| known.key.starts_with(typed))
    {
        match key[typed.len()..].find('.') {
            Some(dot) => {
                let section = &key[..typed.len() + dot + 1];
                if seen.insert(section.to_owned()) {
                    found.push(CompletionCandidate::new(section));
                }
            }
            None => found.push(described(format!("{key}{end}"), &description)),
        }
    }
    found
}

/// A candidate with the first sentence of its description.
fn described(value: String, description: &str) -> CompletionCandidate {
    let sentence = description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.');
    CompletionCandidate::new(value).help((!sentence.is_empty()).then(|| sentence.to_owned().into()))
}

/// The runs directory that the line names so far.
fn runs_dir() -> RunsDir {
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words()).ok();
    let named = matches.and_then(|matches| matches.get_one::<PathBuf>("runs_dir").cloned());
    RunsDir::new(named.unwrap_or_else(|| "runs".into()))
}
