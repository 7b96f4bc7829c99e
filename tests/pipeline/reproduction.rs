//! `reproduce`: repeats a run from its manifest, and reports what differs.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::project::{Ended, Project, json};

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_run_is_reproduced_bit_for_bit() {
    let project = Project::new();
    // The tokens already exist, prepared by a run that has been deleted.
    project.oss_run("tiny.toml --until prepare").ends_with(0);
    fs::remove_dir_all(project.path("runs/tiny")).unwrap();
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    // Neither the file nor the environment has any effect.
    project.set(&["optimizer.lr = 7.0"]);
    let mut command = project.command("reproduce last --json");
    let ended = Ended::of(command.env("OSS_RUN__OPTIMIZER__LR", "9.0")).ends_with(0);
    let found = document(&ended);
    assert_eq!((found["identical"].as_bool(), found["steps"].as_u64()), (Some(true), Some(6)));
    let compared: Vec<&str> =
        found["compared"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(compared, ["metrics", "weights", "evaluation", "samples", "export"]);
    assert_eq!(found["differences"], Value::Array(Vec::new()), "the same machine a moment later");
    let again = project.path("runs/.reproduced/tiny").join(run.file_name().unwrap());
    assert!(again.join("export/model.safetensors").exists());
    // Repeated a second time, it only compares; the copy is not among the project's runs.
    let ended = project.oss_run(&format!("reproduce {}", run.display())).ends_with(0);
    assert!(ended.stdout.ends_with("identical  6 steps, bit for bit\n"), "{}", ended.stdout);
    assert!(!ended.stderr.contains("stale"), "{}", ended.stderr);
    assert_eq!(project.runs().len(), 1);
}

#[test]
fn the_first_difference_is_reported() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    let path = project.the_run().join("metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.starts_with("{\"step\":4,\"loss\"")).unwrap();
    let loss = serde_json::from_str::<Value>(line).unwrap()["loss"].to_string();
    fs::write(&path, text.replace(&format!("\"loss\":{loss}"), "\"loss\":1.5")).unwrap();
    let ended = project.oss_run("reproduce last").ends_with(1);
    let wanted = format!("metrics    DIFFERENT, first difference at step 4: loss was 1.5, now {loss}");
    assert!(ended.stdout.contains(&wanted), "{}", ended.stdout);
    assert!(ended.stdout.contains("weights    identical"), "{}", ended.stdout);
    // Up to that step nothing differs.
    let ended = project.oss_run("reproduce last --steps 3").ends_with(0);
    assert!(ended.stdout.contains("identical  3 steps"), "{}", ended.stdout);
}

#[test]
fn part_of_a_stopped_run_is_reproduced() {
    let project = Project::new();
    project.oss_run("tiny.toml --stop-at-step 4").ends_with(75);
    let ended = project.oss_run("reproduce tiny --steps 2").ends_with(0);
    assert!(ended.stdout.ends_with("identical  2 steps, bit for bit\n"), "{}", ended.stdout);
    let ended = project.oss_run("reproduce tiny/").ends_with(2);
    assert!(ended.stderr.contains("is not a run directory"), "{}", ended.stderr);
    let ended = project.oss_run("reproduce tiny").ends_with(0);
    assert!(ended.stdout.ends_with("identical  4 steps, bit for bit\n"), "{}", ended.stdout);
}

#[test]
fn a_run_records_the_diff_of_its_working_tree() {
    let project = Project::new();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(project.path(""))
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !git(&["init", "--quiet"]) {
        return; // Without git there is nothing to record.
    }
    assert!(git(&["add", "tiny.toml"]) && git(&["commit", "--quiet", "-m", "An experiment"]));
    project.set(&["run.notes = \"token = 'abcdefgh1234'\""]);
    // Run from another directory: what counts is the working tree that contains the experiment.
    let mut command = project.command(&format!("{} --until prepare", project.path("tiny.toml").display()));
    let elsewhere = tempfile::tempdir().unwrap();
    Ended::of(command.current_dir(&elsewhere)).ends_with(0);
    let runs = elsewhere.path().join("runs/tiny");
    let run = fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    let state = json(&run.join("manifest.json"))["segments"][0]["git"].clone();
    assert_eq!(state["dirty"], true);
    let diff = fs::read_to_string(run.join(format!("environment/{}.diff", state["diff"].as_str().unwrap())))
        .unwrap();
    assert!(diff.contains("+notes = ") && !diff.contains("abcdefgh1234"), "{diff}");
}
