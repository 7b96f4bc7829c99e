//! The keys, commands and files that the pages name exist.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use oss_config::{ENVIRONMENT_PREFIX, Experiment, schema};
use oss_run::cli::Cli;
use serde_json::Value;

/// The page that maps other programs' names to ours. Everything in its inline code is a name, except in the left
/// columns, which are theirs.
const MAPPING: &str = "docs/coming-from.md";

/// Where the files of a run are listed.
const RUN_DIRECTORIES: &str = include_str!("../../docs/run-directory.md");

/// A page's code: inline, as lines of shell, and as TOML.
struct Page {
    name: String,
    inline: Vec<String>,
    shell: Vec<String>,
    toml: Vec<String>,
}

#[test]
fn keys_and_commands_in_the_pages_exist() {
    let schema = schema();
    let mut mistakes = Vec::new();
    let (mut keys, mut commands) = (0, 0);
    for page in pages() {
        let mut note = |code: &str, mistake: Option<String>| {
            mistakes.extend(mistake.map(|mistake| format!("{}: `{code}`: {mistake}", page.name)));
        };
        for code in &page.inline {
            if code.starts_with("oss-run ") {
                commands += 1;
                note(code, command_mistake(code));
            } else if let Some(path) = dotted(&schema, code) {
                keys += 1;
                note(code, unless(has_key(&schema, &schema, &path), "no such key"));
            }
        }
        for line in &page.shell {
            commands += 1;
            note(line, command_mistake(line));
        }
        for text in &page.toml {
            let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{}: {error}", page.name));
            for path in paths(&table) {
                keys += 1;
                note(&path.join("."), unless(has_key(&schema, &schema, &path), "no such key"));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(keys > 150 && commands > 80, "{keys} keys, {commands} commands");
}

#[test]
fn every_name_on_the_page_for_newcomers_exists() {
    let schema = schema();
    let page = page(MAPPING);
    let mistakes: Vec<String> = page
        .inline
        .iter()
        .filter_map(|code| Some(format!("`{code}`: {}", name_mistake(&schema, code)?)))
        .collect();
    assert!(mistakes.is_empty(), "{MAPPING}:\n{}", mistakes.join("\n"));
    assert!(page.inline.len() > 120, "{}", page.inline.len());
}

fn pages() -> Vec<Page> {
    let mut pages = vec![page("README.md"), page("CONTRIBUTING.md")];
    for folder in ["docs", "docs/explained"] {
        for entry in fs::read_dir(root().join(folder)).expect("the repository contains pages") {
            let name = entry.expect("a readable entry").file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                pages.push(page(&format!("{folder}/{name}")));
            }
        }
    }
    pages
}

fn page(name: &str) -> Page {
    let text = fs::read_to_string(root().join(name)).expect("a readable page").replace("\\\n", " ");
    let (mut prose, mut shell, mut toml) = (String::new(), Vec::new(), Vec::new());
    let mut language = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), language) {
            (Some(opened), None) => {
                language = Some(opened);
                toml.extend((opened == "toml").then(String::new));
            }
            (Some(_), Some(_)) => language = None,
            (None, Some("sh" | "bash")) => shell.extend(oss_run(line)),
            (None, Some("toml")) => {
                if let Some(block) = toml.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
            }
            (None, Some(_)) => {}
            (None, None) => {
                let is_row = name == MAPPING && line.starts_with('|');
                prose.push_str(if is_row { last_cell(line) } else { line });
                prose.push(' ');
            }
        }
    }
    let inline = prose.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Page { name: name.to_owned(), inline, shell, toml }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn last_cell(row: &str) -> &str {
    row.trim_end_matches('|').rsplit('|').next().unwrap_or_default()
}

/// The call of the program in a line of shell, which another program may launch.
fn oss_run(line: &str) -> Option<String> {
    let start = line.find("oss-run ")?;
    (start == 0 || line[..start].ends_with(' ')).then(|| line[start..].to_owned())
}

/// What is wrong with a name on the page that maps names.
fn name_mistake(schema: &Value, code: &str) -> Option<String> {
    if code.starts_with("oss-run ") {
        return command_mistake(code);
    }
    if let Some(variable) = code.strip_prefix(ENVIRONMENT_PREFIX) {
        return key_mistake(schema, &variable.to_lowercase().replace("__", "."));
    }
    if let Some(option) = code.strip_prefix("--") {
        let (option, value) = option.split_once(' ').unwrap_or((option, ""));
        let key = value.split('=').next().filter(|key| !key.is_empty());
        return unless(is_option(option), "no such option").or_else(|| key_mistake(schema, key?));
    }
    let is_file = code.contains('/') || [".toml", ".json", ".jsonl"].iter().any(|end| code.ends_with(end));
    if is_file {
        return unless(RUN_DIRECTORIES.contains(code), "not among the files of a run directory");
    }
    key_mistake(schema, code)
}

/// What is wrong with a command. Words in capitals stand for values, so a missing value is no mistake.
fn command_mistake(line: &str) -> Option<String> {
    let mut words = words(line);
    words.retain(|word| !word.chars().all(|letter| letter.is_ascii_uppercase()));
    if words.get(1).is_some_and(|word| word.ends_with(".toml")) {
        words.insert(1, "run".to_owned());
    }
    let error = Cli::try_parse_from(words).err()?;
    let is_abridged = matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelp);
    unless(is_abridged, &error.to_string())
}

/// Splits a line like a shell: quotes group words; a comment, a pipe or a redirection ends it.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '#' | '|' | '>') => break,
            (None, ' ') => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn is_option(name: &str) -> bool {
    let program = Cli::command();
    let commands = program.get_subcommands().chain([&program]);
    commands.flat_map(clap::Command::get_arguments).any(|argument| argument.get_long() == Some(name))
}

/// What is wrong with `key`, `key = value` or `[section]`.
fn key_mistake(schema: &Value, code: &str) -> Option<String> {
    let (key, value) = code.split_once(" = ").map_or((code, None), |(key, value)| (key, Some(value)));
    let path: Vec<&str> = key.trim_matches(['[', ']']).split('.').collect();
    if value.is_none() || !has_key(schema, schema, &path) {
        return unless(has_key(schema, schema, &path), "no such key");
    }
    let text = format!("dataset.builtin = \"stories\"\n{code}\n");
    Experiment::from_toml_str("code", &text).err().map(|errors| errors.to_string())
}

/// The path of inline code that names a key in a section, maybe with a value.
fn dotted<'a>(schema: &Value, code: &'a str) -> Option<Vec<&'a str>> {
    let path: Vec<&str> = code.split([' ', '=']).next()?.split('.').collect();
    let is_word = |part: &&str| part.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
    let is_source_file = path.last() == Some(&"rs");
    let names_a_key = path.len() > 1 && path.iter().all(is_word) && has_key(schema, schema, &path[..1]);
    (names_a_key && !is_source_file).then_some(path)
}

/// Whether the file's schema has a key; a table in a list has the list's path.
fn has_key(root: &Value, schema: &Value, path: &[impl AsRef<str>]) -> bool {
    if let Some(target) = schema["$ref"].as_str() {
        return root.pointer(target.trim_start_matches('#')).is_some_and(|found| has_key(root, found, path));
    }
    let [key, rest @ ..] = path else { return true };
    let inner = schema["properties"].get(key.as_ref());
    inner.is_some_and(|inner| has_key(root, inner, rest))
        || schema["additionalProperties"].is_object()
        || ["allOf", "anyOf"]
            .iter()
            .filter_map(|name| schema[*name].as_array())
            .flatten()
            .chain(schema.get("items"))
            .any(|part| has_key(root, part, path))
}

/// The paths of all keys of a table.
fn paths(table: &toml::Table) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (key, value) in table {
        all.push(vec![key.clone()]);
        let tables: Vec<&toml::Table> = match value {
            toml::Value::Table(table) => vec![table],
            toml::Value::Array(items) => items.iter().filter_map(toml::Value::as_table).collect(),
            _ => Vec::new(),
        };
        for inner in tables.into_iter().flat_map(paths) {
            all.push(std::iter::once(key.clone()).chain(inner).collect());
        }
    }
    all
}

/// The mistake, unless there is none.
fn unless(fine: bool, mistake: &str) -> Option<String> {
    (!fine).then(|| mistake.to_owned())
}
