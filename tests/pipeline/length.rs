//! The length of training: epochs instead of steps, and early stopping.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::project::{Project, json, losses, weights};

/// Number of training windows of 16 tokens.
fn windows(run: &Path) -> u64 {
    let prepare = json(&run.join("manifest.json"))["stages"]["prepare"].clone();
    let index = prepare["outputs"]["main"]["index"].clone();
    (index["train"]["tokens"].as_u64().unwrap() - 1) / 16
}

#[test]
fn epochs_become_steps_once_the_text_is_prepared() {
    let project = Project::with(&["train.global_batch_size = 100", "train.micro_batch_size = 50"]);
    project.oss_run("tiny.toml --until prepare").ends_with(0);
    let windows = windows(&project.the_run());
    fs::remove_dir_all(project.path("runs")).unwrap();

    let epochs = "tiny.toml --set train.epochs=2.5";
    let plan = project.oss_run(&format!("plan {epochs}")).ends_with(0);
    assert!(plan.stdout.contains("run unknown until prepared: train.epochs determines"), "{}", plan.stdout);
    project.oss_run(&format!("{epochs} --until train")).ends_with(0);
    let run = project.the_run();
    let manifest = json(&run.join("manifest.json"));
    let steps = (windows as f64 * 2.5 / 100.0).ceil() as u64;
    assert!(steps > 6, "{steps}");
    assert_eq!(manifest["experiment"]["train"]["steps"], steps);
    assert_eq!(losses(&run).last().unwrap().0, steps);
    assert_eq!(project.oss_run(&format!("{epochs} --until train")).ends_with(0).ran(), [""; 0]);
    let plan = project.oss_run(&format!("plan {epochs}")).ends_with(0);
    assert!(plan.stdout.contains("train.epochs = 2.5"), "{}", plan.stdout);
    // The same run, given by its steps, and resumed to more epochs of a constant schedule.
    project.oss_run(&format!("tiny.toml --set train.steps={steps} --until train")).ends_with(0);
    project.oss_run("resume last --set train.epochs=3 --until train").ends_with(0);
    assert_eq!(project.the_run(), run);
    assert_eq!(losses(&run).last().unwrap().0, (windows as f64 * 3.0 / 100.0).ceil() as u64);

    let early = "--set schedule.kind=cosine --set schedule.decay_steps=3";
    let plan = project.oss_run(&format!("plan {epochs} {early}")).ends_with(0);
    let warning = format!("the learning rate decay ends at step 3, but the run ends at step {steps}");
    assert!(plan.stderr.contains(&warning) && !plan.stderr.contains("step 1000"), "{}", plan.stderr);
    let both = project.oss_run("tiny.toml --set train.epochs=1 --set train.steps=4").ends_with(2);
    assert!(both.stderr.contains("`train.epochs` and `train.steps` both set"), "{}", both.stderr);
    let long = project.oss_run("tiny.toml --set train.epochs=0.01 --set schedule.warmup_steps=50");
    assert!(long.ends_with(2).stderr.contains("a warmup of 50 steps is longer than the run (1 steps)"));
}

/// An experiment that does not learn, so that no evaluation is better than the first.
const STUCK: [&str; 6] = [
    "optimizer.lr = 1e-30",
    "train.steps = 40",
    "evaluate.every_steps = 3",
    "evaluate.patience = 2",
    "checkpoint.every_steps = 100",
    "log.every_steps = 1",
];

#[test]
fn early_stopping_ends_training_for_good() {
    let project = Project::with(&STUCK);
    let ended = project.oss_run("tiny.toml").ends_with(0);
    assert!(
        ended.stderr.contains("stopped early at step 9 of 40: 2 evaluations without a lower"),
        "{}",
        ended.stderr
    );
    let run = project.the_run();
    assert_eq!(losses(&run).last().unwrap().0, 9);
    let listed: Value = serde_json::from_str(&project.oss_run("ls --json").ends_with(0).stdout).unwrap();
    let listed = &listed["runs"][0];
    assert_eq!((&listed["state"], &listed["step"]), (&"done".into(), &9.into()), "{listed}");
    let stages = json(&run.join("manifest.json"))["stages"].clone();
    assert_eq!(stages["export"]["outputs"]["step"], 9);
    assert_eq!(project.oss_run("tiny.toml").ends_with(0).ran(), [""; 0]);
    assert_eq!(project.oss_run("resume last").ends_with(0).ran(), [""; 0]);
    project.oss_run("reproduce last").ends_with(0);

    // More patience continues the run.
    let ended = project.oss_run("tiny.toml --set evaluate.patience=4").ends_with(0);
    assert_eq!(ended.ran()[0], "train: evaluate.patience changed 2 -> 4", "{:?}", ended.ran());
    assert_eq!((losses(&run).last().unwrap().0, project.the_run()), (15, run.clone()));
}

#[test]
fn early_stopping_is_the_same_after_an_interruption() {
    let whole = Project::with(&STUCK);
    whole.oss_run("tiny.toml --until train").ends_with(0);
    for step in [3, 8, 9] {
        let project = Project::with(&STUCK);
        project.oss_run(&format!("tiny.toml --until train --stop-at-step {step}"));
        project.oss_run("resume last --until train").ends_with(0);
        assert_eq!(losses(&project.the_run()), losses(&whole.the_run()), "stopped at {step}");
        assert_eq!(weights(&project.the_run()), weights(&whole.the_run()), "stopped at {step}");
    }
}

#[test]
fn patience_without_evaluations_is_an_error() {
    let project = Project::with(&["evaluate.patience = 2"]);
    let kept = project.oss_run("plan tiny.toml").ends_with(0);
    assert!(kept.stderr.contains("ends some evaluations after its best weights"), "{}", kept.stderr);
    let never = project.oss_run("plan tiny.toml --set evaluate.every_steps=0").ends_with(2);
    assert!(
        never.stderr.contains("`evaluate.patience` needs evaluations during training"),
        "{}",
        never.stderr
    );
}
