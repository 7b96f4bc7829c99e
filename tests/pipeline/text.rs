//! Text sources: mixes, trained tokenizers, separate validation text, and the Hub cache.

use std::fs;

use crate::project::{Project, json, text};

#[test]
fn a_tokenizer_is_trained_once_and_shared() {
    let project = Project::with(&["dataset.tokenizer = { train = 280 }"]);
    project.oss_run("tiny.toml").ends_with(0);
    let config = json(&project.the_run().join("export/config.json"));
    assert_eq!(config["vocab_size"], 280);
    let other = project.oss_run("tiny.toml --set run.seed=5").ends_with(0);
    assert_eq!(other.stages()["prepare"], "fresh");
    let again = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(again.ran(), [""; 0]);
    project.oss_run("sample last --prompt The --greedy").ends_with(0);
}

#[test]
fn a_mix_with_separate_validation_text() {
    let project = Project::new();
    project.write("other.txt", &text(40));
    project.write("held.txt", &text(30));
    let toml = fs::read_to_string(project.path("tiny.toml")).unwrap();
    let mix = "
[[dataset.source]]
name = 'first'
weight = 3
files = ['text.txt']

[[dataset.source]]
name = 'second'
files = ['other.txt']
";
    let toml = toml
        .replace("files = [\"text.txt\"]", "")
        .replace("validation.fraction = 0.2", "validation.files = ['held.txt']");
    project.write("tiny.toml", &(toml + mix));
    let shared = "30 of 30 validation documents are also in the training text";
    let ended = project.oss_run("tiny.toml").ends_with(0);
    assert!(ended.stderr.contains(shared), "{}", ended.stderr);
    let prepared = json(&project.the_run().join("manifest.json"))["stages"]["prepare"]["outputs"].clone();
    let documents = |name: &str, part: &str| prepared[name]["index"][part]["documents"].as_u64().unwrap();
    assert_eq!(documents("first", "train"), 120);
    assert_eq!(documents("second", "train"), 40);
    assert_eq!((documents("validation", "train"), documents("validation", "validation")), (0, 30));

    // 6 steps of 2 sequences of 16 tokens, three quarters of them from the first source.
    let plan = project.oss_run("plan tiny.toml --json").ends_with(0);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let tokens = |name: &str| prepared[name]["index"]["train"]["tokens"].as_f64().unwrap();
    for (source, name, share) in [(0, "first", 0.75), (1, "second", 0.25)] {
        let planned = &plan["sources"][source];
        assert_eq!((&planned["name"], &planned["share"]), (&name.into(), &share.into()));
        let epochs = planned["epochs"].as_f64().unwrap();
        assert!((epochs - 192.0 * share / tokens(name)).abs() < 1e-9, "{planned}");
    }
    let repeated = project.oss_run("plan tiny.toml --set train.steps=4000").ends_with(0);
    assert!(repeated.stderr.contains("training reads source `second` "), "{}", repeated.stderr);
    assert!(repeated.stdout.contains("75% of the sequences, from "), "{}", repeated.stdout);

    // Changed validation text does not start another run: nothing is trained on it.
    project.write("held.txt", &text(20));
    let ended = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(ended.ran(), ["prepare: validation text changed", "evaluate: validation tokens changed"]);
    // A changed mixing weight does.
    let toml = fs::read_to_string(project.path("tiny.toml")).unwrap().replace("weight = 3", "weight = 2");
    project.write("tiny.toml", &toml);
    project.oss_run("tiny.toml --until train").ends_with(0);
    assert_eq!(project.runs().len(), 2);
}

#[test]
fn validation_text_that_is_training_text_is_reported() {
    let project = Project::new();
    let separate =
        |files: &str| format!("tiny.toml --until train --set dataset.validation.files=[\"{files}\"]");
    // Before anything is prepared, files are compared; afterwards documents.
    let plan = project.oss_run(&format!("plan {}", separate("text.txt").replace(" --until train", "")));
    assert!(plan.stderr.contains("1 of 1 validation file is also in the training text"), "{}", plan.stderr);
    let run = project.oss_run(&separate("text.txt")).ends_with(0);
    assert!(run.stderr.contains("120 of 120 validation documents are also in"), "{}", run.stderr);

    project.write("mixed.txt", &text(120).replace("on day 7.", "on another day."));
    let run = project.oss_run(&separate("mixed.txt")).ends_with(0);
    assert!(!run.stderr.contains("also in the training text"), "it is up to date: {}", run.stderr);
    let run = project.oss_run(&format!("{} --new", separate("mixed.txt"))).ends_with(0);
    assert!(run.stderr.contains("119 of 120 validation documents are also in"), "{}", run.stderr);
    project.write("other.txt", &text(120).replace(" on day ", " in month "));
    let run = project.oss_run(&format!("{} --new", separate("other.txt"))).ends_with(0);
    assert!(!run.stderr.contains("also in the training text"), "{}", run.stderr);
}

/// Adds a dataset to the Hub cache as a download would, and points `main` at it.
fn cache(project: &Project, commit: &str, text: &str) {
    let repository = project.path("hub/hub/datasets--someone--stories");
    let snapshot = repository.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(snapshot.join("train.txt"), text).unwrap();
    fs::write(repository.join("refs/main"), commit).unwrap();
}

#[test]
fn a_hub_revision_is_pinned_when_first_resolved() {
    let project = Project::new();
    let toml = fs::read_to_string(project.path("tiny.toml")).unwrap();
    let hub = "hub = { repo = 'someone/stories', files = ['train.txt'] }";
    project.write("tiny.toml", &toml.replace("files = [\"text.txt\"]", hub));
    let commits = ["1", "2"].map(|digit| digit.repeat(40));
    cache(&project, &commits[0], &text(120));
    let plan = project.oss_run("plan tiny.toml").ends_with(0);
    assert!(plan.stdout.contains("until prepared"), "{}", plan.stdout);
    project.oss_run("tiny.toml").ends_with(0);
    let plan = project.oss_run("plan tiny.toml").ends_with(0);
    assert!(plan.stdout.contains("train      fresh"), "{}", plan.stdout);

    cache(&project, &commits[1], &text(60));
    let again = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(again.ran(), [""; 0], "the hub moved on, the experiment did not");
    let resolved = fs::read_to_string(project.the_run().join("experiment.toml")).unwrap();
    assert!(resolved.contains(&commits[0]), "{resolved}");
    let set = format!("--set dataset.hub.revision={}", commits[1]);
    project.oss_run(&format!("tiny.toml --until train {set}")).ends_with(0);
    assert_eq!(project.runs().len(), 2);
}

#[test]
fn unusable_text_is_reported() {
    let project = Project::new();
    for (name, content, words, status) in [
        ("empty.txt", "", "empty.txt: the file is empty", 2),
        ("blank.txt", " \n \n", "blank.txt", 1),
        ("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n", "bad.jsonl:2", 1),
        ("short.txt", "Too short.\n", "fewer than one window of train.sequence_length", 1),
    ] {
        project.write(name, content);
        let set = format!(
            "--set dataset.files=[\"{name}\"] --set dataset.validation.fraction=0 --set evaluate.every_steps=0"
        );
        let ended = project.oss_run(&format!("tiny.toml {set}")).ends_with(status);
        assert!(ended.stderr.contains(words), "{name}: {}", ended.stderr);
    }
    let held = project.oss_run("tiny.toml --set train.sequence_length=2000").ends_with(1);
    assert!(held.stderr.contains("fewer than one window"), "{}", held.stderr);
}
