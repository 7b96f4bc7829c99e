//! The reference page of the experiment file, generated from the types that parse it.

use std::fmt::Write;

use serde_json::Value;

use super::{
    schema,
    shape::{self, Field, Shape},
};

const INTRODUCTION: &str = "\
# The experiment file

Every key of the experiment file. This page is generated from the types that parse the file (regenerate it with
`OSS_RUN_BLESS=1 cargo test --test pages`). `oss-run schema` prints the same information as a JSON Schema, which editors
with a TOML language server use for completion and validation.

Values come from layers, weakest first: the defaults below, the files named by a top-level `extends = \"base.toml\"` (or
a list of files, where later ones win), the file itself, `OSS_RUN__SECTION__KEY` environment variables, and `--set
section.key=value`. `--unset section.key` resets a key to its default. Lists are replaced; tables are merged key by key.
A layer that sets a text source (`builtin`, `files`, `hub` or `source`) replaces the source of weaker layers, and
`model.preset` replaces the architecture of weaker layers. Paths are relative to the directory of the file that contains
them; in environment variables and arguments, they are relative to the working directory.
";

/// The page in Markdown: a table per section, in the order of the types.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    let schema = schema();
    if let Shape::Table(sections) = shape::file() {
        for section in sections.iter().filter(|section| section.name != "extends") {
            let about = schema["properties"][&section.name]["allOf"][0]["$ref"]
                .as_str()
                .and_then(|target| schema.pointer(target.trim_start_matches('#')))
                .and_then(|definition| definition["description"].as_str())
                .unwrap_or(&section.description);
            table(&mut page, &section.name, about, &section.shape, false);
        }
    }
    page
}

/// The heading and table of one TOML table, followed by those of the tables inside it.
fn table(page: &mut String, path: &str, about: &str, shape: &Shape, in_list: bool) {
    let Shape::Table(fields) = shape else { return };
    let header = if in_list { format!("[[{path}]]") } else { format!("[{path}]") };
    page.push_str(&format!("\n## `{header}`\n\n{}\n\n", one_line(about)));
    page.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for field in fields {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            field.name,
            cell(&value(&field.shape)),
            cell(&default(field)),
            cell(&one_line(&field.description))
        );
    }
    choices(page, fields);
    for field in fields {
        let inner = format!("{path}.{}", field.name);
        match &field.shape {
            Shape::List { item, .. } => table(page, &inner, &field.description, item, true),
            Shape::Table(_) => table(page, &inner, &field.description, &field.shape, false),
            Shape::Either(shapes) => {
                shapes.iter().for_each(|shape| table(page, &inner, &field.description, shape, false));
            }
            _ => {}
        }
    }
}

/// The meaning of each variant of an enum, below the table that uses it.
fn choices(page: &mut String, fields: &[Field]) {
    for field in fields {
        let mut words = Vec::new();
        collect_choices(&field.shape, &mut words);
        if !words.is_empty() {
            page.push_str(&format!("\n`{}`:\n", field.name));
            for (name, meaning) in words {
                page.push_str(&format!("- `\"{name}\"`: {}\n", one_line(meaning)));
            }
        }
    }
}

fn collect_choices<'a>(shape: &'a Shape, into: &mut Vec<(&'a str, &'a str)>) {
    match shape {
        Shape::Choice(choices) => {
            into.extend(choices.iter().map(|choice| (choice.name.as_str(), choice.description.as_str())));
        }
        Shape::List { item, .. } => collect_choices(item, into),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| collect_choices(shape, into)),
        _ => {}
    }
}

/// The values a key accepts.
fn value(shape: &Shape) -> String {
    let bounded = |bounds: &shape::Bounds| {
        let words = bounds.words();
        if words.is_empty() { shape.words() } else { format!("{}, {words}", shape.words()) }
    };
    match shape {
        Shape::Integer(bounds) | Shape::Float(bounds) => bounded(bounds),
        Shape::Map(_) => "a table with arbitrary keys".into(),
        Shape::Choice(choices) => {
            let names = choices.iter().map(|choice| format!("`\"{}\"`", choice.name));
            names.collect::<Vec<_>>().join(" \\| ")
        }
        Shape::List { item, .. } if matches!(**item, Shape::Choice(_)) => {
            format!("a list of {}", value(item))
        }
        Shape::Either(shapes) => shapes.iter().map(value).collect::<Vec<_>>().join(" or "),
        _ => shape.words(),
    }
}

fn default(field: &Field) -> String {
    match &field.default {
        Some(Value::Object(_)) | None if field.required => "required".into(),
        Some(Value::Object(_)) | None => String::new(),
        Some(value) => format!("`{value}`"),
    }
}

/// Doc comments wrap; table cells do not.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A bar would end the cell early.
fn cell(text: &str) -> String {
    text.replace("\\|", "|").replace('|', "\\|")
}
