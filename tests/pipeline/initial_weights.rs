//! `model.init_from`: the shape and the tokenizer belong to the weights.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::project::{Ended, Project, json};

/// Values of a plan that are compared with those of the weights.
fn planned(project: &Project, arguments: &str) -> Value {
    let ended = project.oss_run(&format!("plan --json {arguments}")).ends_with(0);
    serde_json::from_str::<Value>(&ended.stdout).unwrap()["experiment"].take()
}

/// Number of prepared texts and tokenizers.
fn prepared(project: &Project) -> usize {
    let entries = fs::read_dir(project.path("runs/.prepared")).into_iter().flatten();
    entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

/// `plan` and `run` both refuse with `error` and `hint`, before anything is prepared or made.
#[track_caller]
fn refused(project: &Project, arguments: &str, error: &str, hint: &str) {
    let before = prepared(project);
    for command in ["plan", "run"] {
        let Ended { stderr, .. } = project.oss_run(&format!("{command} {arguments}")).ends_with(2);
        assert!(stderr.contains(error) && stderr.contains(hint), "{command}: {stderr}");
    }
    assert!(!project.path("runs/tuned").exists());
    assert_eq!(prepared(project), before);
}

#[test]
fn a_run_starts_from_another_runs_weights() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let first = project.the_run();
    let export = first.join("export");
    for from in [first.file_name().unwrap().to_str().unwrap(), export.to_str().unwrap()] {
        let set = format!("--set model.init_from={from} --set run.name=tuned");
        project.oss_run(&format!("tiny.toml --until train {set}")).ends_with(0);
    }
    let tuned = std::fs::read_dir(project.path("runs/tuned")).unwrap().count();
    assert_eq!(tuned, 2, "the export is rounded, so the start differs");
}

/// The experiment without `[model]` and `dataset.tokenizer`, as `tuned.toml`.
fn leaves_to_the_weights(project: &Project) {
    let text = fs::read_to_string(project.path("tiny.toml")).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table.remove("model").unwrap();
    table["dataset"].as_table_mut().unwrap().remove("tokenizer").unwrap();
    project.write("tuned.toml", &toml::to_string(&table).unwrap());
}

/// The only run of `tuned.toml`.
fn tuned(project: &Project) -> PathBuf {
    let mut runs = fs::read_dir(project.path("runs/tuned")).unwrap();
    let run = runs.next().unwrap().unwrap().path();
    assert!(runs.next().is_none());
    run
}

#[test]
fn what_an_experiment_leaves_out_is_that_of_the_weights() {
    let project = Project::with(&["dataset.tokenizer = { train = 270 }", "model.vocab_size = 280"]);
    project.oss_run("tiny.toml").ends_with(0);
    leaves_to_the_weights(&project);
    let export = project.the_run().join("export");
    for from in ["tiny", export.to_str().unwrap()] {
        let experiment = planned(&project, &format!("tuned.toml --set model.init_from={from}"));
        let shape =
            ["hidden_size", "num_hidden_layers", "vocab_size"].map(|key| experiment["model"][key].clone());
        assert_eq!(shape, [16, 2, 280], "{from}");
        let tokenizer = experiment["dataset"]["tokenizer"].as_str().unwrap();
        assert!(Path::new(tokenizer).join("tokenizer.json").is_file(), "{from}: {tokenizer}");
        project.oss_run(&format!("tuned.toml --set model.init_from={from}")).ends_with(0);
        let run = json(&tuned(&project).join("manifest.json"));
        assert_eq!(run["experiment"]["dataset"]["tokenizer"], tokenizer);
        fs::remove_dir_all(project.path("runs/tuned")).unwrap();
    }
    let stdout = project.oss_run("plan tuned.toml --set model.init_from=tiny").ends_with(0).stdout;
    assert!(
        stdout.lines().any(|line| line.contains("model.hidden_size") && line.contains("weights of tiny"))
    );
}

#[test]
fn a_built_in_tokenizer_is_kept_by_name() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    leaves_to_the_weights(&project);
    let experiment = planned(&project, "tuned.toml --set model.init_from=tiny");
    assert_eq!(experiment["dataset"]["tokenizer"], "bytes");
}

#[test]
fn another_tokenizer_than_that_of_the_weights_is_refused() {
    let project = Project::with(&["dataset.tokenizer = { train = 270 }"]);
    project.oss_run("tiny.toml").ends_with(0);
    let export = project.the_run().join("export");
    project.write("text.txt", &"Completely other words, and pairs of letters, again.\n".repeat(80));
    let unset = "hint: unset dataset.tokenizer to use the tokenizer of the weights";
    for from in ["tiny", export.to_str().unwrap()] {
        let tuned = format!("tiny.toml --set run.name=tuned --set model.init_from={from}");
        refused(&project, &tuned, ": it is trained on the text of this experiment", unset);
        // The same tokens as before, in a file of the same size with two of them exchanged.
        let text = fs::read_to_string(export.join("tokenizer.json")).unwrap();
        let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let (a, b) = (vocabulary["a"].take(), vocabulary["b"].take());
        (vocabulary["a"], vocabulary["b"]) = (b, a);
        for folder in ["exchanged", "same"] {
            fs::create_dir_all(project.path(folder)).unwrap();
        }
        project.write("exchanged/tokenizer.json", &tokenizer.to_string());
        let exchanged = format!("{tuned} --set dataset.tokenizer=./exchanged");
        let error = "dataset.tokenizer does not give the tokens that the weights in ";
        refused(&project, &exchanged, error, unset);
        // The file itself is the same tokenizer, wherever it is.
        project.write("same/tokenizer.json", &text);
        project.oss_run(&format!("plan {tuned} --set dataset.tokenizer=./same")).ends_with(0);
    }
}

#[test]
fn a_tokenizer_that_changed_since_training_is_refused() {
    let project = Project::with(&["dataset.tokenizer = { train = 270 }"]);
    project.oss_run("tiny.toml").ends_with(0);
    let mut tokenizer: Value = json(&project.the_run().join("export/tokenizer.json"));
    project.write("tokenizer.json", &tokenizer.to_string());
    let file = "tiny.toml --set dataset.tokenizer=./tokenizer.json";
    project.oss_run(&format!("{file} --until train --set run.name=first")).ends_with(0);

    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let (a, b) = (vocabulary["a"].take(), vocabulary["b"].take());
    (vocabulary["a"], vocabulary["b"]) = (b, a);
    project.write("tokenizer.json", &tokenizer.to_string());
    let tuned = format!("{file} --set run.name=tuned --set model.init_from=first");
    refused(
        &project,
        &tuned,
        "dataset.tokenizer does not give the tokens that the weights in first",
        "unset",
    );
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let model = project.the_run().join("export/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let name = "model.layers.1.mlp.router.weight";
    let begin = 8 + header + tensors[name]["data_offsets"][0].as_u64().unwrap() as usize;
    for value in [f32::NAN, f32::INFINITY] {
        let (low, high) = (value.to_bits() as u16 as u8, (value.to_bits() >> 16) as u16);
        assert_eq!(low, 0);
        bytes[begin..begin + 2].copy_from_slice(&high.to_le_bytes());
        fs::write(&model, &bytes).unwrap();
        let export = model.parent().unwrap().display();
        let ended =
            project.oss_run(&format!("tiny.toml --set run.name=tuned --set model.init_from={export}"));
        let ended = ended.ends_with(1);
        let error = format!("1 of 64 values of {name} are NaN or infinite");
        assert!(
            ended.stderr.contains(&error) && ended.stderr.contains("model.init_from"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_vocabulary_larger_than_that_of_the_weights_is_refused() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    let tuned =
        "tiny.toml --set run.name=tuned --set model.init_from=tiny --set dataset.tokenizer={train=300}";
    refused(
        &project,
        tuned,
        "model.vocab_size is 257, but the tokenizer has 300 tokens",
        "the tokenizer of the weights",
    );
}

#[test]
fn a_plan_compares_the_shape_with_the_initial_weights() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    for command in ["plan", "run"] {
        let set = "--set model.init_from=tiny --set run.name=tuned --set model.hidden_size=32";
        let ended = project.oss_run(&format!("{command} tiny.toml {set}")).ends_with(2);
        assert!(ended.stderr.contains("[model] does not match the weights in "), "{}", ended.stderr);
        let hint = "hint: set model.hidden_size = 16, or leave out every key of [model] but init_from";
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    }
}
