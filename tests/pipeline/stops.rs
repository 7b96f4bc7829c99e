//! Stops on request, kills, and resumes.

use std::fs;
use std::time::Duration;

use crate::project::{Ended, Project, json, losses, text, weights};

/// Results of an uninterrupted run.
fn whole(values: &[&str]) -> (String, Vec<(u64, f64)>) {
    let project = Project::with(values);
    project.oss_run("tiny.toml --until train").ends_with(0);
    (weights(&project.the_run()), losses(&project.the_run()))
}

#[test]
fn a_pause_changes_nothing() {
    let cosine = ["schedule.kind = 'cosine'", "train.steps = 7"];
    let project = Project::with(&cosine);
    let paused = project.oss_run("tiny.toml --stop-at-step 3").ends_with(75);
    assert!(
        paused.stderr.contains("stopped at step 3 of 7\nhint: resume with `oss-run resume "),
        "{}",
        paused.stderr
    );
    let run = project.the_run();
    assert_eq!(json(&run.join("manifest.json"))["stages"]["train"]["state"], "stopped");
    project.oss_run("resume last --stop-at-step 5").ends_with(75);
    let ended = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(ended.ran()[0], "train: stopped at step 5 of 7");
    assert_eq!((weights(&run), losses(&run)), whole(&cosine));
}

#[test]
fn a_change_after_a_stop_says_that_it_starts_a_new_run() {
    let project = Project::new();
    project.oss_run("tiny.toml --stop-at-step 3").ends_with(75);
    let id = project.the_run().file_name().unwrap().to_str().unwrap().to_owned();
    let notice = format!("warning: {id} stopped at step 3 with optimizer.lr = 0.0003; this starts a new run");
    for command in ["plan", "run"] {
        let ended = project.oss_run(&format!("{command} tiny.toml --set optimizer.lr=0.5")).ends_with(0);
        assert!(ended.stderr.contains(&notice), "{}", ended.stderr);
    }
    let same = project.oss_run("plan tiny.toml").ends_with(0);
    assert!(!same.stderr.contains("starts a new run"), "{}", same.stderr);
}

/// Without a terminal, a long run still says how far it is.
#[test]
fn a_run_on_a_pipe_prints_status_lines() {
    let project =
        Project::with(&["train.steps = 1_000_000", "log.every_seconds = 1", "evaluate.every_steps = 0"]);
    let mut started = project.start("tiny.toml");
    started.wait_for(" left, loss ");
    started.wait_for(" left, loss ");
    started.signal("INT");
    let ended = started.end().ends_with(75);
    let status = |line: &&str| line.starts_with("train: ") && line.contains(" of 1,000,000 steps, ");
    assert!(ended.stderr.lines().filter(status).count() >= 2, "{}", ended.stderr);
}

#[test]
fn samples_of_repeated_steps_are_removed() {
    let project = Project::with(&["sample.every_steps = 2"]);
    project.oss_run("tiny.toml --stop-at-step 3").ends_with(75);
    let samples = project.the_run().join("samples");
    let written = fs::read(samples.join("step-00000002.json")).unwrap();
    // Left over from a step after the last checkpoint of a killed process.
    fs::write(samples.join("step-00000005.json"), "[]").unwrap();
    project.oss_run("resume last --stop-at-step 5").ends_with(75);
    assert_eq!(fs::read(samples.join("step-00000002.json")).unwrap(), written);
    assert!(!samples.join("step-00000005.json").exists());
    assert!(samples.join("step-00000004.json").exists());
}

#[test]
fn resume_needs_only_the_manifest() {
    let project = Project::new();
    project.oss_run("tiny.toml --stop-at-step 3").ends_with(75);
    for name in ["text.txt", "tiny.toml"] {
        fs::remove_file(project.path(name)).unwrap();
    }
    fs::remove_file(project.the_run().join("experiment.toml")).unwrap();
    let mut command = project.command("resume tiny --json");
    let ended = Ended::of(command.env("OSS_RUN__OPTIMIZER__LR", "0.5")).ends_with(0);
    let summary: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(summary["evaluation"]["step"], 6);
    assert_eq!(weights(&project.the_run()), whole(&[]).0);
}

#[test]
fn resume_accepts_only_changes_that_keep_the_trajectory() {
    let project = Project::new();
    project.oss_run("tiny.toml --stop-at-step 3").ends_with(75);
    let refused = project.oss_run("resume last --set optimizer.lr=0.1").ends_with(2);
    assert!(refused.stderr.contains("optimizer.lr affects the weights"), "{}", refused.stderr);
    project.oss_run("resume last --set optimizer.rate=0.1").ends_with(2);
    let set = "--set train.steps=8 --set export.dtype=f32";
    project.oss_run(&format!("resume last {set}")).ends_with(0);
    assert_eq!(weights(&project.the_run()), whole(&["train.steps = 8"]).0);
}

/// Signals the program once it prints `words`, and expects it to stop.
#[track_caller]
fn interrupt_at(project: &Project, arguments: &str, words: &str) -> Ended {
    let mut started = project.start(arguments);
    started.wait_for(words);
    started.signal("INT");
    started.end().ends_with(75)
}

#[test]
fn every_stage_stops_on_request_and_resumes() {
    // Each stage is long enough for a signal sent after its first line to arrive in time.
    let project = Project::with(&[
        "train.steps = 3000",
        "evaluate.max_tokens = 20000000",
        "evaluate.every_steps = 0",
        "sample.max_new_tokens = 20000",
        "log.every_steps = 1000",
        "checkpoint.every_steps = 1000",
    ]);
    project.write("text.txt", &text(60_000));
    let prepared = interrupt_at(&project, "tiny.toml", "prepare    stale");
    assert!(prepared.stderr.contains("stopped in prepare"), "{}", prepared.stderr);
    let trained = interrupt_at(&project, "tiny.toml", "train      stale");
    assert!(trained.stderr.contains("stopped at step "), "{}", trained.stderr);
    let run = project.the_run();
    // Far enough: the other phases do not need the remaining steps.
    let taken = newest_step(&run);
    let steps = format!("--set train.steps={}", taken.max(1) + 1);
    let evaluated = interrupt_at(&project, &format!("resume last {steps}"), "evaluate   stale");
    assert!(evaluated.stderr.contains("stopped in evaluate"), "{}", evaluated.stderr);
    let quick = "--set evaluate.max_tokens=100";
    let sampled = interrupt_at(&project, &format!("resume last {quick}"), "sample     stale");
    assert!(sampled.stderr.contains("stopped in sample"), "{}", sampled.stderr);
    let quick = "--set sample.max_new_tokens=2";
    let ended = project.oss_run(&format!("resume last {quick}")).ends_with(0);
    assert_eq!(ended.ran().len(), 2, "{:?}", ended.ran());
    assert!(run.join("export/model.safetensors").exists());
}

/// Step of the newest checkpoint.
fn newest_step(run: &std::path::Path) -> u64 {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let step = |name: String| name.strip_prefix("step-")?.parse().ok();
    entries.filter_map(|entry| step(entry.unwrap().file_name().into_string().unwrap())).max().unwrap_or(0)
}

#[test]
fn a_stopped_export_keeps_the_old_one() {
    // A large vocabulary makes large tensors, so that there is time to stop.
    let project = Project::with(&["model.vocab_size = 60000", "train.steps = 2", "export.dtype = 'f32'"]);
    project.oss_run("tiny.toml").ends_with(0);
    let export = project.the_run().join("export");
    let before = fs::read(export.join("model.safetensors")).unwrap();
    // The signal may occasionally arrive too late, but not every time.
    let stopped = (0..10).any(|_| {
        let mut started = project.start("tiny.toml --force export");
        started.wait_for("export     stale");
        started.signal("TERM");
        started.end().status == 75
    });
    assert!(stopped, "the export is never stopped");
    assert_eq!(fs::read(export.join("model.safetensors")).unwrap(), before);
    assert_eq!(project.oss_run("tiny.toml").ends_with(0).ran().len(), 1);
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_same_result() {
    let values = ["train.steps = 120", "checkpoint.every_steps = 5", "schedule.kind = 'cosine'"];
    let project = Project::with(&values);
    for steps in [13, 46, 91] {
        let mut started = project.start("tiny.toml --until train");
        started.wait_for("train      stale");
        // From here on, the kill may hit any point of a step, a line of metrics or a checkpoint.
        while steps_logged(&project) < steps {
            std::thread::sleep(Duration::from_millis(1));
        }
        started.signal("KILL");
        assert_eq!(started.end().status, -1, "it was still running");
    }
    project.oss_run("tiny.toml --until train").ends_with(0);
    let run = project.the_run();
    assert_eq!((weights(&run), losses(&run)), whole(&values));
}

/// Number of training steps in the metrics, including a torn one that is being written.
fn steps_logged(project: &Project) -> usize {
    let run = project.runs().pop();
    let metrics = run.and_then(|run| fs::read_to_string(run.join("metrics.jsonl")).ok());
    metrics.map_or(0, |metrics| metrics.lines().filter(|line| line.contains("\"loss\"")).count())
}

#[test]
fn two_processes_cannot_write_to_one_run() {
    let project = Project::with(&["train.steps = 5000", "log.every_steps = 1000"]);
    let mut first = project.start("tiny.toml");
    first.wait_for("train      stale");
    let second = project.oss_run("tiny.toml").ends_with(1);
    let words = format!("is in use by process {}", first.pid());
    assert!(second.stderr.contains(&words), "{}", second.stderr);
    first.signal("INT");
    first.end().ends_with(75);
}
