//! Files that were corrupted after they were written: detected, reported by name, and survived.

use std::fs;
use std::path::{Path, PathBuf};

use crate::project::{Ended, Project, weights};

/// Flips one bit of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_manifest_is_reported_with_the_previous_one() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let manifest = project.the_run().join("manifest.json");
    damage(&manifest);
    let ended = project.oss_run("tiny.toml").ends_with(1);
    assert!(ended.stderr.contains("manifest.json is damaged"), "{}", ended.stderr);
    assert!(ended.stderr.contains("manifest.previous.json"), "{}", ended.stderr);
    fs::copy(manifest.with_file_name("manifest.previous.json"), &manifest).unwrap();
    project.oss_run("tiny.toml").ends_with(0);
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_previous_one() {
    let project = Project::new();
    project.oss_run("tiny.toml --stop-at-step 5").ends_with(75);
    let run = project.the_run();
    let shard = run.join("checkpoints/step-00000005/rank-00000-of-00001.safetensors");
    damage(&shard);
    let ended = project.oss_run("tiny.toml --until train").ends_with(0);
    assert!(ended.stderr.contains("step-00000005 is damaged"), "{}", ended.stderr);
    let other = Project::new();
    other.oss_run("tiny.toml --until train").ends_with(0);
    assert_eq!(weights(&run), weights(&other.the_run()));
}

#[test]
fn damaged_tokens_are_reported() {
    let project = Project::new();
    project.oss_run("tiny.toml --stop-at-step 2").ends_with(75);
    let tokens = find(&project.path("runs/.prepared"), "train.bin");
    damage(&tokens);
    let ended = project.oss_run("tiny.toml").ends_with(1);
    assert!(ended.stderr.contains("train.bin is damaged"), "{}", ended.stderr);
    project.oss_run("tiny.toml --force prepare").ends_with(0);
}

#[test]
fn damaged_outputs_are_regenerated() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    damage(&run.join("samples/final.json"));
    fs::remove_file(run.join("evaluation.json")).unwrap();
    fs::remove_dir_all(run.join("export")).unwrap();
    let ended = project.oss_run("tiny.toml").ends_with(0);
    let ran = ended.ran();
    assert_eq!(ran.len(), 3);
    for (reason, words) in
        ran.iter().zip(["evaluation.json is missing", "final.json is damaged", "is missing"])
    {
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn removed_prepared_data_is_regenerated() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    fs::remove_dir_all(project.path("runs/.prepared")).unwrap();
    let ended = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(ended.ran().len(), 1, "{:?}", ended.ran());
    assert!(ended.ran()[0].starts_with("prepare: ") && ended.ran()[0].ends_with("is missing"));
}

#[test]
fn changed_text_starts_another_run() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    let more = fs::read_to_string(project.path("text.txt")).unwrap() + "One more story.\n";
    project.write("text.txt", &more);
    project.oss_run("tiny.toml --until train").ends_with(0);
    assert_eq!(project.runs().len(), 2);
}

#[test]
fn secrets_appear_in_no_file_or_message() {
    let project = Project::new();
    let secret = "hf_canary7f3a91";
    let mut command = project.command("tiny.toml -vv");
    let ended = Ended::of(command.env("HF_TOKEN", secret)).ends_with(0);
    assert!(!ended.stderr.contains(secret) && !ended.stdout.contains(secret));
    let mut seen = 0;
    walk(&project.path("runs"), &mut |path| {
        let bytes = fs::read(path).unwrap();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} contains the token", path.display());
        seen += 1;
    });
    assert!(seen > 10);
}

fn find(dir: &Path, name: &str) -> PathBuf {
    let mut found = None;
    walk(dir, &mut |path| {
        if path.ends_with(name) {
            found = Some(path.to_owned());
        }
    });
    found.unwrap()
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, visit) } else { visit(&path) }
    }
}
