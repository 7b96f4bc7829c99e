//! A typo in any key or enum value is reported at its location, with the correct spelling as the suggestion.

use oss_config::{ExperimentErrors, schema};
use serde_json::Value;

use crate::Folder;

/// A key or an enum value, and the table it belongs to.
struct Spot {
    /// Keys from the top level, with `[]` after one that contains a list of tables.
    path: Vec<String>,
    schema: Value,
}

/// Every key of the schema at every depth.
fn spots() -> Vec<Spot> {
    let root = schema();
    let mut spots = Vec::new();
    walk(&root, &root, &mut Vec::new(), &mut spots);
    spots
}

fn walk(schema: &Value, root: &Value, path: &mut Vec<String>, spots: &mut Vec<Spot>) {
    if let Some(target) = schema["$ref"].as_str() {
        return walk(
            &root[&target[2..].split('/').next().expect("a part")]
                [target.rsplit('/').next().expect("a part")],
            root,
            path,
            spots,
        );
    }
    for key in ["allOf", "anyOf"] {
        schema[key].as_array().into_iter().flatten().for_each(|inner| walk(inner, root, path, spots));
    }
    if let Some(name) = path.last_mut().filter(|_| schema["items"].is_object()) {
        name.push_str("[]");
        walk(&schema["items"], root, path, spots);
        if let Some(name) = path.last_mut() {
            name.truncate(name.len() - 2);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        spots.push(Spot { path: path.clone(), schema: property.clone() });
        walk(property, root, path, spots);
        path.pop();
    }
}

/// The values of an enum, wherever they are in the schema.
fn words(schema: &Value, root: &Value) -> Vec<String> {
    if let Some(target) = schema["$ref"].as_str() {
        return words(root.pointer(&target[1..]).expect("a definition"), root);
    }
    let mut found: Vec<String> = schema["const"].as_str().map(str::to_owned).into_iter().collect();
    found
        .extend(schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    for key in ["allOf", "anyOf", "oneOf"] {
        found.extend(schema[key].as_array().into_iter().flatten().flat_map(|inner| words(inner, root)));
    }
    if schema["items"].is_object() {
        found.extend(words(&schema["items"], root));
    }
    found
}

/// Typos: a letter dropped, doubled, transposed, replaced or added; the wrong case; dashes for underscores.
fn slips(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let middle = letters.len() / 2;
    let mut lost = letters.clone();
    lost.remove(middle);
    let mut doubled = letters.clone();
    doubled.insert(middle, letters[middle]);
    let mut swapped = letters.clone();
    swapped.swap(middle - 1, middle);
    let mut replaced = letters.clone();
    replaced[middle] = 'q';
    let mut added = letters.clone();
    added.push('s');
    let hand =
        [lost, doubled, swapped, replaced, added].map(|letters| letters.into_iter().collect::<String>());
    let other = [word.to_uppercase(), word.replace('_', "-")];
    hand.into_iter().chain(other).filter(|slip| slip != word).collect()
}

/// A file with `line` in the table at `path`; returns the text and the line number of `line`.
fn file_with(path: &[String], line: &str) -> (String, usize) {
    let stories = if path.first().is_some_and(|section| section == "dataset") {
        String::new()
    } else {
        "[dataset]\nbuiltin = \"stories\"\n".to_owned()
    };
    let (above, header) = match path {
        [] => (line.to_owned() + "\n", String::new()),
        _ => {
            let joined = path.join(".").replace("[]", "");
            let list = path.iter().rposition(|part| part.ends_with("[]"));
            let before = match list {
                Some(last) if last + 1 < path.len() => {
                    format!("[[{}]]\n", path[..=last].join(".").replace("[]", ""))
                }
                _ => String::new(),
            };
            let header = if path.last().is_some_and(|last| last.ends_with("[]")) {
                format!("[[{joined}]]\n")
            } else {
                format!("[{joined}]\n")
            };
            (String::new(), format!("{before}{header}{line}\n"))
        }
    };
    let text = format!("{above}{stories}{header}");
    let number = text.lines().position(|candidate| candidate == line).expect("the line is there") + 1;
    (text, number)
}

#[test]
fn a_typo_in_any_key_gets_a_suggestion() {
    let folder = Folder::new(&[]);
    let spots = spots();
    let siblings_of = |path: &[String]| -> Vec<String> {
        let (_, table) = path.split_last().expect("a key");
        spots
            .iter()
            .filter(|spot| spot.path.split_last().is_some_and(|(_, other)| other == table))
            .filter_map(|spot| spot.path.last().cloned())
            .collect()
    };
    let mut tried = 0;
    for spot in &spots {
        let (name, table) = spot.path.split_last().expect("a key");
        let siblings = siblings_of(&spot.path);
        for slip in slips(name).into_iter().filter(|slip| !siblings.contains(slip)) {
            let (text, line) = file_with(table, &format!("{slip} = 1"));
            folder.write("e.toml", &text);
            let errors = folder.load("e.toml", &[]).expect_err(&text);
            let place = Some((folder.path("e.toml").display().to_string(), line, 1));
            let problem = errors.problems().iter().find(|problem| problem.location() == place);
            let fix = problem.and_then(|problem| problem.fix()).unwrap_or_default();
            let right = format!("`{name}`");
            assert!(
                fix.starts_with("did you mean") && fix.contains(&right),
                "{text}\n{errors}\nwants {right}"
            );
            tried += 1;
        }
    }
    assert!(tried > 400, "only {tried} typos tried");
}

/// `a.b[].c` written on one line in the section `[a]`: `b = [{ slip = 1 }]`.
fn inline(path: &[String], slip: &str) -> String {
    let inside = format!("{slip} = 1");
    path.iter().skip(1).rev().fold(inside, |inside, part| match part.strip_suffix("[]") {
        Some(name) => format!("{name} = [{{ {inside} }}]"),
        None => format!("{part} = {{ {inside} }}"),
    })
}

#[test]
fn a_typo_in_any_inline_table_gets_a_suggestion() {
    let folder = Folder::new(&[]);
    let mut tried = 0;
    for spot in spots().iter().filter(|spot| spot.path.len() > 2) {
        let (name, table) = spot.path.split_last().expect("a key");
        let slip = format!("{name}q");
        let line = inline(table, &slip);
        folder.write("e.toml", &format!("[{}]\n{line}\n", table[0]));
        let errors = folder.load("e.toml", &[]).expect_err(&line);
        let column = line.find(&slip).expect("the slip") + 1;
        let place = Some((folder.path("e.toml").display().to_string(), 2, column));
        let problem = errors.problems().iter().find(|problem| problem.location() == place);
        let fix = problem.and_then(|problem| problem.fix()).unwrap_or_default();
        assert!(fix.starts_with("did you mean") && fix.contains(&format!("`{name}`")), "{line}\n{errors}");
        tried += 1;
    }
    assert!(tried > 15, "only {tried} typos tried");
}

#[test]
fn a_typo_in_any_argument_gets_a_suggestion() {
    let folder = Folder::new(&[("e.toml", "[dataset]\nbuiltin = \"stories\"\n")]);
    let mut tried = 0;
    // Keys inside lists of tables have no dotted name, and only a file can contain `extends` and `[sweep]`.
    let of_files = ["extends", "sweep"];
    let is_named = |spot: &&Spot| {
        !spot.path.iter().any(|part| part.ends_with("[]")) && !of_files.contains(&spot.path[0].as_str())
    };
    for spot in spots().iter().filter(is_named) {
        let (name, table) = spot.path.split_last().expect("a key");
        let path = |last: &str| table.iter().map(String::as_str).chain([last]).collect::<Vec<_>>().join(".");
        let slip = path(&format!("{name}q"));
        let wanted = format!("`{name}`");
        // The table may be missing other keys, too.
        let suggests = |errors: &ExperimentErrors| {
            let mut fixes = errors.problems().iter().filter_map(|problem| problem.fix());
            fixes.any(|fix| fix.starts_with("did you mean") && fix.contains(&wanted))
        };
        for argument in [format!("{slip}=1"), format!("{slip}.inner=1")] {
            let errors = folder.load("e.toml", &[&argument]).expect_err(&argument);
            assert!(suggests(&errors), "{argument}\n{errors}");
        }
        let errors = folder.unset("e.toml", &[&slip], &[]).expect_err(&slip);
        assert!(suggests(&errors), "--unset {slip}\n{errors}");
        tried += 1;
    }
    assert!(tried > 80, "only {tried} typos tried");
}

#[test]
fn a_typo_in_any_value_gets_a_suggestion() {
    let folder = Folder::new(&[]);
    let root = schema();
    let tokenizers = oss_config::TOKENIZERS.map(str::to_owned).to_vec();
    let devices = oss_config::DEVICES.map(str::to_owned).to_vec();
    let mut tried = 0;
    for spot in spots() {
        let (name, table) = spot.path.split_last().expect("a key");
        let valid = match spot.path.join(".").as_str() {
            "dataset.tokenizer" => tokenizers.clone(),
            "train.device" => devices.clone(),
            _ => words(&spot.schema, &root),
        };
        let is_list = name == "layer_types";
        for word in &valid {
            for slip in slips(word).into_iter().filter(|slip| !valid.contains(slip)) {
                let before = if is_list { "[\"" } else { "\"" };
                let value = if is_list { format!("[\"{slip}\"]") } else { format!("\"{slip}\"") };
                let (text, line) = file_with(table, &format!("{name} = {value}"));
                folder.write("e.toml", &text);
                let errors = folder.load("e.toml", &[]).expect_err(&text);
                let column = name.len() + " = ".len() + before.len();
                let place = Some((folder.path("e.toml").display().to_string(), line, column));
                let problem = errors.problems().iter().find(|problem| problem.location() == place);
                let fix = problem.and_then(|problem| problem.fix()).unwrap_or_default();
                let suggested = fix.split('?').next().unwrap_or_default();
                assert!(suggested.contains(&format!("\"{word}\"")), "{text}\n{errors}\nwants {word}");
                assert!(
                    valid.iter().all(|word| fix.contains(word.as_str())),
                    "{fix} does not list all of {valid:?}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "only {tried} typos tried");
}
