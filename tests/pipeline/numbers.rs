//! Non-finite losses, low precision, and an evaluation that does not depend on how it is computed.

use std::fs;

use serde_json::Value;

use crate::project::{Project, json};

/// A learning rate at which the loss of the second step is NaN.
const HOPELESS: &str = "optimizer.lr = 1e18";

#[test]
fn a_non_finite_loss_stops_with_everything_needed_to_investigate() {
    let project = Project::with(&[HOPELESS]);
    let ended = project.oss_run("tiny.toml").ends_with(1);
    for part in ["step 2: the loss is NaN", "batch with digest", "lower optimizer.lr", "step-00000000"] {
        assert!(ended.stderr.contains(part), "no {part:?} in:\n{}", ended.stderr);
    }
}

#[test]
fn non_finite_steps_are_skipped_if_configured() {
    let project = Project::with(&[HOPELESS, "train.non_finite = \"skip\""]);
    project.oss_run("tiny.toml --until train --stop-at-step 4").ends_with(75);
    project.oss_run("tiny.toml --until train").ends_with(0);
    let skipped: Vec<bool> =
        steps(&project).iter().map(|line| line.get("skipped") == Some(&Value::Bool(true))).collect();
    assert_eq!(skipped, [false, true, true, true, true, true]);
}

#[test]
fn bf16_and_f16_follow_f32() {
    let curve = |precision: &str| {
        let project = Project::with(&[&format!("train.precision = {precision:?}"), "optimizer.lr = 3e-3"]);
        project.oss_run("tiny.toml --until train").ends_with(0);
        let loss = |line: &Value| line["loss"].as_f64().unwrap();
        steps(&project).iter().map(loss).collect::<Vec<f64>>()
    };
    let exact = curve("f32");
    assert!(exact[5] < exact[0], "{exact:?}");
    for precision in ["bf16", "f16"] {
        for (narrow, exact) in curve(precision).iter().zip(&exact) {
            assert!((narrow / exact - 1.0).abs() < 2e-2, "{precision}: {narrow}, in f32 {exact}");
        }
    }
}

#[test]
fn evaluation_does_not_depend_on_the_micro_batch_size() {
    let score = |values: &[&str]| {
        let project = Project::new();
        project.oss_run("tiny.toml --until train").ends_with(0);
        project.set(values);
        project.oss_run("tiny.toml").ends_with(0);
        json(&project.the_run().join("evaluation.json"))["loss"].as_f64().unwrap()
    };
    let whole = score(&[]);
    let halved = score(&["train.micro_batch_size = 1"]);
    assert!((whole - halved).abs() <= 1e-9 * whole, "{whole} and {halved}");
}

#[test]
fn skipped_steps_are_counted_and_limited() {
    let overflowing =
        ["train.precision = 'f16'", "model.initializer_range = 1000.0", "train.non_finite = 'skip'"];
    let project = Project::with(&overflowing);
    let ended = project.oss_run("tiny.toml --until train").ends_with(0);
    assert!(ended.stderr.contains("skipped    6 of 6 steps"), "{}", ended.stderr);
    let listed = project.oss_run("ls").ends_with(0).stdout;
    assert!(listed.contains("done, 6 steps skipped"), "{listed}");

    project.set(&["train.max_skipped_steps = 4", "run.seed = 1"]);
    let ended = project.oss_run("tiny.toml --until train").ends_with(1);
    assert!(
        ended.stderr.contains("step 4: 4 steps in a row were skipped (4 of 4 in total)"),
        "{}",
        ended.stderr
    );
}

/// The metrics of the training steps.
fn steps(project: &Project) -> Vec<Value> {
    let text = fs::read_to_string(project.the_run().join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("lr").is_some()).collect()
}
