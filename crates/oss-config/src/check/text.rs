//! `[dataset]`: the text sources, and whether there is validation text.

use super::{Findings, unsafe_name};
use crate::{
    Dataset, Experiment, Hub, TOKENIZERS, TokenizerChoice, Wanted, url_problem, validate::not_one_of,
};

pub(super) fn dataset(dataset: &Dataset, found: &mut Findings) {
    let named = [
        ("builtin", dataset.builtin.is_some()),
        ("files", dataset.files.is_some()),
        ("hub", dataset.hub.is_some()),
        ("source", !dataset.source.is_empty()),
    ];
    one_origin("dataset", &named, found);
    origin("dataset", &dataset.files, &dataset.hub, found);
    for (index, source) in dataset.source.iter().enumerate() {
        let path = format!("dataset.source[{index}]");
        let key = |name: &str| format!("{path}.{name}");
        let named = [
            ("builtin", source.builtin.is_some()),
            ("files", source.files.is_some()),
            ("hub", source.hub.is_some()),
        ];
        one_origin(&path, &named, found);
        origin(&path, &source.files, &source.hub, found);
        text_keys(&path, source.text_field.as_deref(), source.separator.as_deref(), found);
        if let Some(fault) = unsafe_name(&source.name) {
            let message = format!("a source cannot be named {:?}: {fault}", source.name);
            found.error(&[&key("name")], message, "use letters and digits");
        } else if dataset.source[..index].iter().any(|earlier| earlier.name == source.name) {
            let message = format!("two sources are named `{}`", source.name);
            found.error(&[&key("name")], message, "give each source a unique name");
        }
    }
    text_keys("dataset", Some(&dataset.text_field), Some(&dataset.separator), found);
    tokenizer(dataset, found);
}

fn tokenizer(dataset: &Dataset, found: &mut Findings) {
    let Dataset { tokenizer, end_of_text, .. } = dataset;
    if let TokenizerChoice::Named(name) = tokenizer
        && let Some((message, fix)) = url_problem(name, Wanted::Model)
    {
        found.error(&["dataset.tokenizer"], message, fix);
    } else if let Some((repo, revision)) = tokenizer.hub() {
        if !is_repository(repo) || revision.is_empty() || !inside(revision) {
            let message = format!("\"{repo}@{revision}\" is neither a file nor a model on the Hub");
            let fix = "write it as owner/name or owner/name@revision, or name a folder with a tokenizer.json";
            found.error(&["dataset.tokenizer"], message, fix);
        }
    } else if let TokenizerChoice::Named(name) = tokenizer
        && !TOKENIZERS.contains(&name.as_str())
        && tokenizer.path().is_none()
    {
        let fix = not_one_of(name, TOKENIZERS.into_iter());
        let fix = format!(
            "{fix}, {{ train = N }}, the path of a tokenizer.json or of a folder with one, or owner/name on the Hub"
        );
        found.error(&["dataset.tokenizer"], format!("unknown tokenizer \"{name}\""), fix);
    }
    match (end_of_text.as_deref(), tokenizer) {
        (Some(""), _) => {
            let fix = "name a token, or leave the key out";
            found.error(&["dataset.end_of_text"], "`dataset.end_of_text` is empty", fix);
        }
        (Some(token), TokenizerChoice::Train(_)) if token != "<|endoftext|>" => {
            let keys = ["dataset.end_of_text", "dataset.tokenizer"];
            let message = format!("a trained tokenizer ends texts with <|endoftext|>, not {token}");
            found.error(&keys, message, "remove `end_of_text`");
        }
        _ => {}
    }
}

/// Whether `name` can be that of a repository on the Hub.
fn is_repository(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.contains("..")
            && *part != "."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    parts.len() <= 2 && parts.iter().all(plain)
}

fn text_keys(path: &str, text_field: Option<&str>, separator: Option<&str>, found: &mut Findings) {
    if text_field == Some("") {
        let key = format!("{path}.text_field");
        let fix = "name the field or column that holds the text, such as \"text\"";
        found.error(&[&key], format!("`{key}` is empty"), fix);
    }
    if separator.is_some_and(|separator| separator.contains(['\n', '\r'])) {
        let key = format!("{path}.separator");
        let fix = "set it to the line between documents, or to \"\" for an empty line";
        found.error(&[&key], format!("`{key}` must be one line"), fix);
    }
}

fn one_origin(path: &str, named: &[(&str, bool)], found: &mut Findings) {
    let chosen: Vec<&str> = named.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    let all = || named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    match chosen.as_slice() {
        [_] => {}
        [] => {
            let fix = format!("set one of {}; to start without any data, set builtin = \"stories\"", all());
            found.error(&[path], format!("`{path}` has no text source"), fix);
        }
        [_, culprit, ..] => {
            let key = format!("{path}.{culprit}");
            let message = format!("`{path}` has {} text sources: {}", chosen.len(), chosen.join(", "));
            found.error(&[&key], message, format!("keep only one of {}", all()));
        }
    }
}

fn origin(path: &str, files: &Option<Vec<String>>, hub: &Option<Hub>, found: &mut Findings) {
    if let Some(files) = files {
        let key = format!("{path}.files");
        if files.is_empty() {
            found.error(&[&key], format!("`{key}` is empty"), "name at least one file or glob pattern");
        }
        for (index, file) in files.iter().enumerate() {
            if let Some((message, fix)) = url_problem(file, Wanted::Text) {
                found.error(&[&format!("{key}[{index}]")], message, fix);
            } else if file.is_empty() || file.contains('\0') {
                let fix = "name a file or a glob pattern";
                found.error(&[&format!("{key}[{index}]")], format!("{file:?} is not a file name"), fix);
            }
        }
    }
    let Some(hub) = hub else { return };
    let key = |name: &str| format!("{path}.hub.{name}");
    if let Some((message, fix)) = url_problem(&hub.repo, Wanted::Dataset) {
        found.error(&[&key("repo")], message, fix);
    } else if !is_repository(&hub.repo) {
        let message = format!("{:?} is not a dataset on the Hub", hub.repo);
        found.error(&[&key("repo")], message, "write it as owner/name, such as \"roneneldan/TinyStories\"");
    }
    if hub.revision.is_empty() || !inside(&hub.revision) {
        let message = format!("{:?} is not a revision", hub.revision);
        found.error(&[&key("revision")], message, "name a branch, tag or commit");
    }
    if hub.files.is_empty() {
        found.error(&[&key("files")], format!("`{}` is empty", key("files")), "name at least one file");
    }
    for (index, file) in hub.files.iter().enumerate() {
        if !inside(file) {
            let message = format!("{file:?} is not a file inside a repository");
            let fix = "use its path in the repository, such as \"data/train.parquet\"";
            found.error(&[&format!("{}[{index}]", key("files"))], message, fix);
        }
    }
}

/// Whether a path stays inside the directory it is relative to.
fn inside(name: &str) -> bool {
    !name.contains('\\')
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

pub(super) fn validation(experiment: &Experiment, found: &mut Findings) {
    let validation = &experiment.dataset.validation;
    let path = "dataset.validation";
    let named = [
        ("builtin", validation.builtin.is_some()),
        ("files", validation.files.is_some()),
        ("hub", validation.hub.is_some()),
    ];
    if validation.origin().is_some() {
        one_origin(path, &named, found);
        origin(path, &validation.files, &validation.hub, found);
        text_keys(path, validation.text_field.as_deref(), validation.separator.as_deref(), found);
        if validation.fraction > 0.0 {
            let keys = ["dataset.validation.fraction", path];
            let message =
                "validation text is either a fraction of the documents or a separate source, not both";
            found.error(&keys, message, "remove `fraction` or the source");
        }
    } else {
        for (name, is_set) in
            [("text_field", validation.text_field.is_some()), ("separator", validation.separator.is_some())]
        {
            if is_set {
                let key = format!("{path}.{name}");
                let message =
                    format!("`{key}` has no effect: held-out documents are read like the training text");
                found.warning(
                    &[&key],
                    message,
                    format!("set dataset.{name}, or name separate validation text"),
                );
            }
        }
    }
    if !has_validation(experiment) && experiment.evaluate.every_steps > 0 {
        let keys = ["dataset.validation.fraction", "evaluate.every_steps"];
        let fix =
            "set dataset.validation.fraction above 0, add validation files, or set evaluate.every_steps = 0";
        found.error(&keys, "evaluation is on, but there is no validation text", fix);
    }
}

pub(super) fn has_validation(experiment: &Experiment) -> bool {
    let validation = &experiment.dataset.validation;
    validation.fraction > 0.0 || validation.origin().is_some()
}
