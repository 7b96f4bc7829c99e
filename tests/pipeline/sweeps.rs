//! Sweeps: killed ones continue, shared work is done once, and extended ones keep their earlier trials.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::project::{Ended, Project, json, weights};

const GRID: &str = r#"
[sweep]
base = "tiny.toml"
until = "evaluate"

[sweep.parameters]
"optimizer.lr" = [1e-3, 2e-3, 4e-3, 8e-3]
run.seed = [0, 1, 2, 3]
"#;

const HALVING: &str = r#"
[sweep]
base = "tiny.toml"
method = "random"
num_trials = 9

[sweep.parameters]
"optimizer.lr" = { min = 1e-3, max = 1e-1, log = true }

[sweep.halving]
min_steps = 2

[train]
steps = 18
"#;

/// The lines of `results.jsonl` without the fields that vary between runs.
fn results(project: &Project, runs: &str, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(project.path(&format!("{runs}/{name}/sweep/results.jsonl"))).unwrap();
    let line = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().shift_remove("seconds");
        row
    };
    text.lines().map(line).collect()
}

fn ledger(project: &Project, runs: &str, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(project.path(&format!("{runs}/{name}/sweep/ledger.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The run directories of a sweep's trials.
fn runs_of(project: &Project, runs: &str, name: &str) -> BTreeSet<String> {
    let folder = project.path(&format!("{runs}/{name}"));
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "sweep").collect()
}

fn starts(run: &Path) -> usize {
    json(&run.join("manifest.json"))["segments"].as_array().unwrap().len()
}

/// Kills the sweep after each of these times, then lets it finish.
fn killed(project: &Project, command: &str, millis: &[u64]) -> Ended {
    for pause in millis {
        let started = project.start(command);
        thread::sleep(Duration::from_millis(*pause));
        started.signal("KILL");
        let ended = started.end();
        assert_eq!(ended.status, -1, "it ended before it was killed:\n{}", ended.stderr);
    }
    project.oss_run(command).ends_with(0)
}

#[test]
fn a_sweep_that_is_killed_five_times_loses_and_repeats_nothing() {
    let project = Project::new();
    project.write("lr.toml", GRID);
    project.oss_run("sweep lr.toml --runs-dir calm").ends_with(0);
    killed(&project, "sweep lr.toml --runs-dir wild", &[700, 230, 910, 480, 640]);
    let (calm, wild) = (results(&project, "calm", "lr"), results(&project, "wild", "lr"));
    assert_eq!(calm.len(), 16);
    assert_eq!(calm, wild);
    assert!(calm.iter().all(|row| row["state"] == "done"));
    let numbers: Vec<u64> = calm.iter().map(|row| row["trial"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
    assert_eq!(runs_of(&project, "calm", "lr"), runs_of(&project, "wild", "lr"));
    for id in runs_of(&project, "calm", "lr") {
        let weights = |runs: &str| weights(&project.path(&format!("{runs}/lr/{id}")));
        assert_eq!(weights("calm"), weights("wild"), "{id}");
    }
    // A finished sweep starts nothing.
    let again = project.oss_run("lr.toml --runs-dir wild").ends_with(0);
    assert!(again.stderr.contains("16 done") && !again.stderr.contains("to step"), "{}", again.stderr);
}

#[test]
fn decisions_at_a_rung_are_the_same_after_kills() {
    let project = Project::new();
    project.write("halve.toml", HALVING);
    project.oss_run("sweep halve.toml --runs-dir calm").ends_with(0);
    killed(&project, "sweep halve.toml --runs-dir wild", &[800, 1300, 600]);
    assert_eq!(results(&project, "calm", "halve"), results(&project, "wild", "halve"));
    assert_eq!(ledger(&project, "calm", "halve"), ledger(&project, "wild", "halve"));
    let states: Vec<Value> =
        results(&project, "calm", "halve").into_iter().map(|row| row["state"].clone()).collect();
    let count = |state: &str| states.iter().filter(|found| **found == state).count();
    assert_eq!((count("done"), count("stopped")), (1, 8));
    let steps: u64 = results(&project, "calm", "halve").iter().map(|row| row["step"].as_u64().unwrap()).sum();
    assert_eq!(steps, 6 * 2 + 2 * 6 + 18, "9 trials of 18 steps would be 162");
    // Without halving, the trials that it ended continue.
    let whole = HALVING.replace("[sweep.halving]\nmin_steps = 2\n", "");
    project.write("halve.toml", &whole);
    project.oss_run("sweep halve.toml --runs-dir calm").ends_with(0);
    assert!(results(&project, "calm", "halve").iter().all(|row| row["state"] == "done" && row["step"] == 18));
}

#[test]
fn two_processes_share_the_trials_of_one_sweep() {
    let project = Project::new();
    project.write("lr.toml", GRID);
    let (a, b) = (project.start("sweep lr.toml"), project.start("sweep lr.toml"));
    a.end().ends_with(0);
    b.end().ends_with(0);
    let rows = results(&project, "runs", "lr");
    assert!(rows.iter().all(|row| row["state"] == "done"), "{rows:?}");
    for id in runs_of(&project, "runs", "lr") {
        assert_eq!(starts(&project.path(&format!("runs/lr/{id}"))), 1, "{id} was started twice");
    }
}

#[test]
fn parallel_trials_give_the_same_results() {
    let project = Project::new();
    project.write("lr.toml", GRID);
    project.oss_run("sweep lr.toml --runs-dir one").ends_with(0);
    project.oss_run("sweep lr.toml --runs-dir two --parallel 2").ends_with(0);
    assert_eq!(results(&project, "one", "lr"), results(&project, "two", "lr"));
}

#[test]
fn an_extended_sweep_runs_only_new_trials() {
    let project = Project::new();
    let sweep = |rates: &str| {
        project.write(
            "lr.toml",
            &format!("[sweep]\nbase = \"tiny.toml\"\n[sweep.parameters]\noptimizer.lr = {rates}\n"),
        );
    };
    sweep("[2e-3, 4e-3]");
    project.oss_run("lr.toml").ends_with(0);
    let before = results(&project, "runs", "lr");
    sweep("[1e-3, 2e-3, 4e-3]");
    let ended = project.oss_run("lr.toml").ends_with(0);
    assert_eq!(ended.stderr.matches("to step").count(), 1, "{}", ended.stderr);
    let after = results(&project, "runs", "lr");
    assert_eq!(after[..2], before[..], "inserting a value renumbers nothing");
    assert_eq!(after[2]["values"]["optimizer.lr"], 1e-3);
    // A changed base is another experiment with other trials.
    project.set(&["optimizer.weight_decay = 0.2"]);
    let dry = project.oss_run("sweep lr.toml --dry-run --json").ends_with(0);
    let rows: Value = serde_json::from_str(&dry.stdout).unwrap();
    let states: Vec<&str> =
        rows["trials"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["waiting"; 3]);
}

#[test]
fn a_stopped_sweep_pauses_its_trial() {
    let project = Project::with(&["train.steps = 4000"]);
    project
        .write("lr.toml", "[sweep]\nbase = \"tiny.toml\"\n[sweep.parameters]\noptimizer.lr = [1e-3, 2e-3]\n");
    let mut sweep = project.start("sweep lr.toml");
    sweep.wait_for("trial 1");
    while fs::read_dir(project.path("runs/lr")).unwrap().count() < 2 {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(500));
    sweep.signal("INT");
    let ended = sweep.end().ends_with(75);
    assert!(ended.stderr.contains("stopped at step"), "{}", ended.stderr);
    let rows = results(&project, "runs", "lr");
    assert_eq!((rows[0]["state"].as_str(), rows[1]["state"].as_str()), (Some("paused"), Some("waiting")));
    assert!(rows[0]["step"].as_u64().unwrap() > 0);
}

#[test]
fn a_failed_trial_does_not_affect_the_others() {
    let project = Project::new();
    let sweep = |policy: &str| {
        let text = "[sweep]\nbase = \"tiny.toml\"\n[sweep.parameters]\noptimizer.lr = [1e30, \
                    1e-3]\n[[sweep.skip]]\noptimizer.lr = 7\n";
        project
            .write("lr.toml", &text.replace("[sweep]\n", &format!("[sweep]\non_failure = \"{policy}\"\n")));
    };
    sweep("continue");
    let ended = project.oss_run("sweep lr.toml").ends_with(1);
    assert!(ended.stderr.contains("1 of 2 trials failed"), "{}", ended.stderr);
    let states: BTreeMap<String, String> = results(&project, "runs", "lr")
        .iter()
        .map(|row| (row["values"]["optimizer.lr"].to_string(), row["state"].as_str().unwrap().to_owned()))
        .collect();
    let states: Vec<&str> = states.values().map(String::as_str).collect();
    assert_eq!(states, ["done", "failed"]);
    // The reason is the one recorded in the trial's own run, with its hint, not the output of its process.
    let rows = results(&project, "runs", "lr");
    let failed = rows.iter().find(|row| row["state"] == "failed").unwrap();
    let run = project.path("runs/lr").join(failed["run"].as_str().unwrap());
    let error = &json(&run.join("manifest.json"))["segments"][0]["error"];
    let told = failed["error"].as_str().unwrap();
    assert!(told.starts_with(error["message"].as_str().unwrap()), "{told}");
    assert!(told.ends_with(error["causes"].as_array().unwrap().last().unwrap().as_str().unwrap()), "{told}");
    let hint = error["hints"][0].as_str().unwrap();
    assert!(hint.starts_with("lower optimizer.lr"), "{hint}");
    assert!(ended.stderr.contains(&format!("\nhint: {hint}\n")), "{}", ended.stderr);
    // It is only retried on request.
    let again = project.oss_run("sweep lr.toml").ends_with(1);
    assert!(!again.stderr.contains("to step"), "{}", again.stderr);
    let again = project.oss_run("sweep lr.toml --retry-failed").ends_with(1);
    assert!(again.stderr.contains("to step"), "{}", again.stderr);

    sweep("stop");
    let ended = project.oss_run("sweep lr.toml --runs-dir other").ends_with(1);
    assert!(ended.stderr.contains("stopped at the first failure"), "{}", ended.stderr);
    assert_eq!(results(&project, "other", "lr")[1]["state"], "waiting");
}

#[test]
fn trials_that_are_the_same_run_are_rejected() {
    let project = Project::new();
    let text = "[sweep]\nbase = \"tiny.toml\"\n[sweep.parameters]\nsample.temperature = [0.5, 1.0]\n";
    project.write("t.toml", text);
    let ended = project.oss_run("sweep t.toml").ends_with(2);
    assert!(ended.stderr.contains("are the same run"), "{}", ended.stderr);
    let ended = project.oss_run("run t.toml --until train").ends_with(2);
    assert!(ended.stderr.contains("do not apply to sweeps"), "{}", ended.stderr);
    let ended = project.oss_run("sweep tiny.toml").ends_with(2);
    assert!(ended.stderr.contains("has no [sweep] section"), "{}", ended.stderr);
}

#[test]
fn trials_may_differ_in_their_steps() {
    let project = Project::with(&["schedule.kind = \"cosine\""]);
    project.write("steps.toml", "[sweep]\nbase = \"tiny.toml\"\n[sweep.parameters]\ntrain.steps = [4, 6]\n");
    project.oss_run("sweep steps.toml").ends_with(0);
    let steps: Vec<Value> =
        results(&project, "runs", "steps").into_iter().map(|row| row["step"].clone()).collect();
    assert_eq!(steps, [4, 6]);
}
