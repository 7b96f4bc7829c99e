//! `rm` and `gc`: what is no longer needed is removed, and nothing else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::project::{Project, json, weights};

/// Backdates everything under `path` far enough that no process can still be using it.
fn let_time_pass(path: &Path) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| let_time_pass(&entry.unwrap().path()));
    }
    File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
}

/// What `gc` would remove, as paths under `runs/`.
fn gc(project: &Project, arguments: &str) -> Vec<String> {
    let ended = project.oss_run(&format!("gc --json {arguments}")).ends_with(0);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    let garbage = found["garbage"].as_array().unwrap();
    let path = |it: &Value| it["path"].as_str().unwrap().strip_prefix("runs/").unwrap().to_owned();
    garbage.iter().map(path).collect()
}

/// Directories of prepared data.
fn prepared(project: &Project) -> Vec<PathBuf> {
    let entries = fs::read_dir(project.path("runs/.prepared")).unwrap();
    let mut dirs: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    dirs
}

#[test]
fn a_run_is_removed_only_after_confirmation() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    let refused = project.oss_run("rm last").ends_with(2);
    assert!(refused.stderr.contains("pass --yes"), "{}", refused.stderr);
    assert!(run.exists());
    let sweep = project.path("runs/tiny/sweep");
    fs::create_dir(&sweep).unwrap();
    fs::write(sweep.join("trials.json"), "{}").unwrap();
    project.oss_run("rm last --yes").ends_with(0);
    assert!(!run.exists() && sweep.join("trials.json").exists());
    assert_eq!(prepared(&project).len(), 1, "others may share it");
    project.oss_run("rm last --yes").ends_with(2);
    // Running the same experiment again starts a normal run.
    assert_eq!(project.oss_run("tiny.toml").ends_with(0).ran().len(), 4);
}

#[test]
fn a_run_that_initialized_others_is_kept() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    let base = project.the_run();
    let id = base.file_name().unwrap().to_str().unwrap().to_owned();
    project.oss_run(&format!("tiny.toml --set model.init_from={id} --until train")).ends_with(0);
    let child = project.runs().into_iter().find(|run| *run != base).unwrap();
    let child_id = child.file_name().unwrap().to_str().unwrap();
    let refused = project.oss_run(&format!("rm {id} --yes")).ends_with(1);
    assert!(
        refused.stderr.contains(&format!("tiny/{child_id} was initialized from the weights of ")),
        "{}",
        refused.stderr
    );

    // An unreadable manifest might refer to it.
    let manifest = fs::read(child.join("manifest.json")).unwrap();
    fs::write(child.join("manifest.json"), &manifest[..manifest.len() / 2]).unwrap();
    let refused = project.oss_run(&format!("rm {id} --yes")).ends_with(1);
    assert!(refused.stderr.contains("may have been initialized from the weights of "), "{}", refused.stderr);
    fs::write(child.join("manifest.json"), manifest).unwrap();

    let trained = weights(&child);
    project.oss_run(&format!("rm {id} --yes --force")).ends_with(0);
    assert_eq!(project.the_run(), child);
    assert_eq!(weights(&child), trained);
    // Both can be removed together without a prompt.
    project.oss_run("tiny.toml --until train").ends_with(0);
    project.oss_run(&format!("rm {id} {child_id} --yes")).ends_with(0);
    assert!(project.runs().is_empty());
}

#[test]
fn prepared_data_is_removed_after_the_last_run_that_uses_it() {
    let project = Project::with(&["dataset.tokenizer = { train = 300 }"]);
    project.oss_run("tiny.toml --until train").ends_with(0);
    project.oss_run("tiny.toml --until train --new").ends_with(0);
    let_time_pass(&project.path("runs/.prepared"));
    assert!(gc(&project, "").is_empty());
    project.oss_run("rm tiny --yes").ends_with(0);
    assert!(gc(&project, "").is_empty(), "the other copy refers to it");
    let damaged = project.the_run().join("manifest.json");
    let manifest = fs::read(&damaged).unwrap();
    fs::write(&damaged, "{").unwrap();
    let kept = project.oss_run("gc").ends_with(0);
    assert!(kept.stderr.contains("keeping all prepared data: "), "{}", kept.stderr);
    fs::write(&damaged, manifest).unwrap();
    project.oss_run("rm tiny --yes").ends_with(0);

    let dirs = prepared(&project);
    assert_eq!(dirs.len(), 2, "tokens and the tokenizer");
    let would = gc(&project, "--dry-run");
    assert_eq!(prepared(&project), dirs, "a dry run removes nothing");
    fs::write(dirs[0].join("young"), "").unwrap();
    assert_eq!(gc(&project, "--dry-run").len(), would.len() - 1, "another process may use it");
    fs::remove_file(dirs[0].join("young")).unwrap();
    let_time_pass(&project.path("runs/.prepared"));
    assert_eq!(gc(&project, ""), would);
    let left: Vec<_> = fs::read_dir(project.path("runs/.prepared")).unwrap().flatten().collect();
    let names: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| name == "digests.json"), "{names:?}");
    project.oss_run("tiny.toml --until train").ends_with(0);
}

#[test]
fn prepared_data_that_is_being_written_is_left_alone() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    project.oss_run("rm last --yes").ends_with(0);
    let_time_pass(&project.path("runs/.prepared"));
    let dir = prepared(&project).remove(0);
    let lock = File::open(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    assert!(gc(&project, "").is_empty());
    drop(lock);
    assert_eq!(gc(&project, "").len(), 1);
}

#[test]
fn leftovers_of_killed_processes_are_removed() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    let id = run.file_name().unwrap().to_str().unwrap().to_owned();
    let before = json(&run.join("manifest.json"));
    let hex = "0123456789abcdef";
    let litter = [
        ".dry-run-Ab12/rank.bin".to_owned(),
        format!("tiny/.dead.removed-{hex}/manifest.json"),
        format!("tiny/{id}/.manifest.json.unfinished-x1"),
        format!("tiny/{id}/checkpoints/step-00000007.tmp-{hex}/rank.safetensors"),
        format!("tiny/{id}/checkpoints/step-00000002.removed-{hex}/rank.safetensors"),
        format!("tiny/{id}/export.replaced-{hex}/config.json"),
        format!("tiny/{id}/samples/.final.txt.unfinished-x1"),
        format!(".prepared/x.tmp-{hex}/train.bin"),
        format!(".prepared/successor.replaced-{hex}/train.bin"),
        ".prepared/.hub.json.unfinished-x1".to_owned(),
    ];
    let kept = [
        // The only copy of its step: the process died before it put the new one in place.
        format!("tiny/{id}/checkpoints/step-00000099.replaced-{hex}/rank.safetensors"),
        ".prepared/successor/train.bin".to_owned(),
        "tiny/sweep/.lock".to_owned(),
        "tiny/sweep/trials.json".to_owned(),
        "tiny/notes.tmp-mine".to_owned(),
    ];
    let runs = project.path("runs");
    let moved_aside = format!(".prepared/only.replaced-{hex}/train.bin");
    for path in litter.iter().chain(&kept).chain([&moved_aside]) {
        fs::create_dir_all(runs.join(path).parent().unwrap()).unwrap();
        fs::write(runs.join(path), "x").unwrap();
    }
    for folder in ["tensorboard", "logs", "checkpoints", "samples"] {
        fs::create_dir_all(runs.join("tiny/unstarted").join(folder)).unwrap();
    }
    fs::write(runs.join("tiny/unstarted/.lock"), "").unwrap();
    let_time_pass(&runs);

    let would = gc(&project, "--dry-run");
    assert_eq!(would.len(), litter.len() + 1, "{would:?}");
    assert!(litter.iter().all(|path| runs.join(path).exists()));
    assert_eq!(gc(&project, ""), would);
    let left: Vec<&String> = litter.iter().filter(|path| runs.join(path).exists()).collect();
    assert!(left.is_empty() && !runs.join("tiny/unstarted").exists(), "{left:?}");
    for path in &kept {
        assert!(runs.join(path).exists(), "{path}");
    }
    assert!(runs.join(".prepared/only/train.bin").exists(), "it is the only version");
    assert!(gc(&project, "").is_empty());
    assert_eq!(json(&run.join("manifest.json")), before);
    assert_eq!(project.oss_run("tiny.toml").ends_with(0).ran(), [""; 0]);
}
