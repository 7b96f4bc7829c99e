//! Tests that need a controlled environment.

use std::{fs, path::PathBuf};

use super::{
    ExperimentErrors, Overrides, Resolved, SetBy,
    load::load_with,
    shape::{self, Shape},
    validate::Report,
};

/// Loads a file that only names its text source, with the given environment.
fn under(variables: &[(&str, &str)], set: &[&str]) -> Result<Resolved, ExperimentErrors> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file: PathBuf = folder.path().join("e.toml");
    fs::write(&file, "[dataset]\nbuiltin = \"stories\"\n[train]\nsteps = 500\n")
        .expect("the file is written");
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let set = set.iter().map(|argument| (*argument).to_owned()).collect();
    load_with(&file, &Overrides { set, ..Overrides::default() }, variables, None, Report::default())
}

#[test]
fn variables_override_files_and_arguments_override_variables() {
    let variables = [
        ("OSS_RUN__TRAIN__STEPS", "600"),
        ("OSS_RUN__OPTIMIZER__LR", "3e-4"),
        ("OSS_RUN__RUN__NAME", "2024"),
        ("OSS_RUN__DATASET__VALIDATION__FRACTION", "0.2"),
        ("OSS_RUN__RUN__LABELS__TEAM", "blue sky"),
        ("OSS_RUN_LOG", "debug"),
    ];
    let resolved = under(&variables, &["optimizer.lr=1e-4"]).expect("loads");
    let experiment = &resolved.experiment;
    assert_eq!(experiment.train.steps, 600);
    assert_eq!(experiment.optimizer.lr, 1e-4);
    assert_eq!(experiment.run.name.as_deref(), Some("2024"));
    assert_eq!(experiment.dataset.validation.fraction, 0.2);
    assert_eq!(experiment.run.labels["team"], "blue sky");
    let variable = SetBy::Environment { variable: "OSS_RUN__TRAIN__STEPS".into() };
    assert_eq!(*resolved.provenance.of("train.steps"), variable);
}

#[test]
fn invalid_variables_are_reported_by_name() {
    let variables = [
        ("OSS_RUN__TRAIN__STEPZ", "600"),
        ("OSS_RUN__TRAIN__PRECISION", "bf15"),
        ("OSS_RUN__DATASET__FILES", "[\"a"),
        ("OSS_RUN__SHARDING__RANKS", ""),
        ("OSS_RUN__EXTENDS", "base.toml"),
    ];
    let errors = under(&variables, &[]).expect_err("all of them are wrong");
    insta::assert_snapshot!(errors, @r#"
    the experiment has 5 problems
    environment variable OSS_RUN__DATASET__FILES: unclosed array, expected `]`; write it as TOML, such as ["a.txt"]; on the command line, quote it with '...' so that the shell keeps the inner quotes
    environment variable OSS_RUN__EXTENDS: unknown key `extends`; only a file can use `extends`: write it there
    environment variable OSS_RUN__SHARDING__RANKS: `sharding.ranks` must be an integer, not a string; omit it to use the default, 1
    environment variable OSS_RUN__TRAIN__PRECISION: `train.precision` cannot be "bf15"; did you mean "bf16"? expected one of f32, bf16, f16
    environment variable OSS_RUN__TRAIN__STEPZ: unknown key `stepz` in [train]; did you mean `steps`?
    "#);
}

/// Every key that a variable can name, as its parts.
fn keys<'a>(shape: &'a Shape, path: &mut Vec<&'a str>, found: &mut Vec<Vec<&'a str>>) {
    match shape {
        Shape::Table(fields) => {
            for field in fields {
                path.push(&field.name);
                found.push(path.clone());
                keys(&field.shape, path, found);
                path.pop();
            }
        }
        Shape::Either(shapes) => shapes.iter().for_each(|shape| keys(shape, path, found)),
        _ => {}
    }
}

#[test]
fn a_typo_in_any_variable_gets_a_suggestion() {
    let mut found = Vec::new();
    keys(shape::experiment(), &mut Vec::new(), &mut found);
    assert!(found.len() > 90, "{}", found.len());
    let slips: Vec<(String, &str)> = found
        .iter()
        .map(|key| (format!("OSS_RUN__{}Q", key.join("__").to_uppercase()), key[key.len() - 1]))
        .collect();
    let variables: Vec<(&str, &str)> = slips.iter().map(|(variable, _)| (variable.as_str(), "1")).collect();
    let errors = under(&variables, &[]).expect_err("all of them are wrong");
    for (variable, key) in &slips {
        let named = format!("environment variable {variable}: ");
        let problem = errors.problems().iter().find(|problem| problem.to_string().starts_with(&named));
        let fix = problem.and_then(|problem| problem.fix()).unwrap_or_default();
        assert!(fix.starts_with("did you mean") && fix.contains(&format!("`{key}`")), "{variable}\n{errors}");
    }
}
