//! Weights in bf16, low-precision moments, and updates in the backward pass.

use std::fs;

use oss_train::checkpoint::Checkpoint;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::project::{Project, losses, weights};

/// All settings that reduce training memory.
const NARROW: [&str; 4] = [
    "train.precision = 'bf16'",
    "train.param_dtype = 'bf16'",
    "optimizer.state_dtype = '8bit'",
    "optimizer.update = 'in_backward'",
];

fn project(values: &[&str]) -> Project {
    let project = Project::with(&["train.steps = 40", "optimizer.lr = 3e-3", "checkpoint.every_steps = 5"]);
    project.set(values);
    project
}

fn checkpoint(project: &Project, step: u64) -> Checkpoint {
    Checkpoint::open(&project.the_run().join(format!("checkpoints/step-{step:08}"))).unwrap()
}

/// Asserts that two checkpoints are bit-identical.
fn assert_same(one: &Checkpoint, other: &Checkpoint) {
    assert_eq!(one.names().collect::<Vec<_>>(), other.names().collect::<Vec<_>>());
    for name in one.names() {
        assert!(one.load(name).unwrap().equal(&other.load(name).unwrap()), "{name}");
    }
}

#[test]
fn low_precision_resumes_bit_for_bit_after_a_kill() {
    resumes_bit_for_bit_after_a_kill(&NARROW);
}

#[test]
fn muon_resumes_bit_for_bit_after_a_kill() {
    resumes_bit_for_bit_after_a_kill(&["optimizer.kind = 'muon'", "optimizer.state_dtype = 'bf16'"]);
}

fn resumes_bit_for_bit_after_a_kill(values: &[&str]) {
    let whole = project(values);
    whole.oss_run("tiny.toml --until train").ends_with(0);
    let project = project(values);
    for stop in [3, 17, 18] {
        project.oss_run(&format!("tiny.toml --until train --stop-at-step {stop}")).ends_with(75);
    }
    let mut started = project.start("tiny.toml --until train");
    started.wait_for("train      stale");
    while losses(&project.the_run()).len() < 25 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    started.signal("KILL");
    started.end();
    project.oss_run("tiny.toml --until train").ends_with(0);
    assert_eq!(losses(&project.the_run()), losses(&whole.the_run()));
    assert_eq!(weights(&project.the_run()), weights(&whole.the_run()));
    assert_same(&checkpoint(&project, 40), &checkpoint(&whole, 40));
}

#[test]
fn a_checkpoint_stores_values_in_their_training_dtype() {
    let project = project(&NARROW);
    project.oss_run("tiny.toml --stop-at-step 5").ends_with(75);
    let checkpoint = checkpoint(&project, 5);
    let kind = |name: &str| checkpoint.load(name).unwrap().kind();
    let (matrix, norm) = ("model.layers.0.self_attn.q_proj.weight", "model.norm.weight");
    assert_eq!((kind(matrix), kind(norm)), (Kind::BFloat16, Kind::Float));
    assert_eq!(kind(&format!("optimizer.exp_avg/{norm}")), Kind::Float);
    assert_eq!(kind(&format!("optimizer.exp_avg_codes/{matrix}")), Kind::Int8);
    assert_eq!(kind(&format!("optimizer.exp_avg_sq_root_codes/{matrix}")), Kind::Uint8);
    let elements: i64 = checkpoint.shape(matrix).unwrap().iter().product();
    let scales = checkpoint.shape(&format!("optimizer.exp_avg_sq_root_scales/{matrix}")).unwrap();
    assert_eq!(scales, [(elements + 255) / 256]);
}

#[test]
fn low_precision_training_follows_f32() {
    let curve = |values: &[&str]| {
        let project = project(values);
        project.oss_run("tiny.toml --until train").ends_with(0);
        losses(&project.the_run()).into_iter().map(|(_, loss)| loss).collect::<Vec<f64>>()
    };
    let exact = curve(&[]);
    assert!(exact[39] < 0.8 * exact[0], "{exact:?}");
    let ways: [(&[&str], f64); 3] = [
        (&["optimizer.state_dtype = 'bf16'"], 2e-3),
        (&["optimizer.state_dtype = '8bit'"], 5e-3),
        (&["optimizer.state_dtype = '8bit'", "train.precision = 'bf16'", "train.param_dtype = 'bf16'"], 2e-2),
    ];
    for (values, bound) in ways {
        for (step, (narrow, exact)) in curve(values).iter().zip(&exact).enumerate() {
            let error = (narrow / exact - 1.0).abs();
            assert!(error < bound, "{values:?}, step {step}: {narrow}, in f32 {exact}");
        }
    }
}

#[test]
fn updates_in_the_backward_pass_match_those_after_it_without_clipping() {
    // After the first step, the second moment is the squared gradient, so the RMS ratio is 1 and does not clip the
    // learning rate.
    for values in [&[] as &[&str], &NARROW[..3], &["optimizer.kind = 'muon'"]] {
        let after_one = |update: &[&str]| {
            let project = project(values);
            project.set(update);
            project.oss_run("tiny.toml --until train --stop-at-step 1").ends_with(75);
            checkpoint(&project, 1)
        };
        let step = after_one(&["optimizer.update = 'step'", "optimizer.max_grad_norm = 0.0"]);
        assert_same(&step, &after_one(&["optimizer.update = 'in_backward'"]));
    }
}

#[test]
fn the_true_gradient_norm_is_recorded() {
    let norm = |update: &[&str]| {
        let project = project(update);
        project.oss_run("tiny.toml --until train --stop-at-step 1").ends_with(75);
        let text = fs::read_to_string(project.the_run().join("metrics.jsonl")).unwrap();
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        line["grad_norm"].as_f64().unwrap()
    };
    let (after, within) = (norm(&[]), norm(&["optimizer.update = 'in_backward'"]));
    assert!((within / after - 1.0).abs() < 1e-9, "{within}, not {after}");
}

#[test]
fn a_non_finite_loss_is_detected_before_any_update() {
    let values = ["optimizer.lr = 1e18", "optimizer.update = 'in_backward'"];
    let stopped = project(&values);
    let ended = stopped.oss_run("tiny.toml").ends_with(1);
    assert!(ended.stderr.contains("step 2: the loss is NaN"), "{}", ended.stderr);
    let skipping = project(&values);
    skipping.set(&["train.non_finite = 'skip'", "checkpoint.every_steps = 1"]);
    skipping.oss_run("tiny.toml --until train --stop-at-step 1").ends_with(75);
    let first: Vec<Tensor> = tensors(&checkpoint(&skipping, 1));
    skipping.oss_run("tiny.toml --until train --stop-at-step 3").ends_with(75);
    for (before, after) in first.iter().zip(tensors(&checkpoint(&skipping, 3))) {
        assert!(before.equal(&after));
    }
}

fn tensors(checkpoint: &Checkpoint) -> Vec<Tensor> {
    checkpoint.names().map(|name| checkpoint.load(name).unwrap().to_device(Device::Cpu)).collect()
}

#[test]
fn bf16_weights_are_exported_unchanged() {
    let project = project(&NARROW);
    project.oss_run("tiny.toml --set train.steps=5").ends_with(0);
    let (checkpoint, export) = (checkpoint(&project, 5), project.the_run().join("export/model.safetensors"));
    let exported = Tensor::read_safetensors(export).unwrap();
    for name in ["model.embed_tokens.weight", "model.layers.1.mlp.experts.down_proj", "lm_head.weight"] {
        let (_, seen) = exported.iter().find(|(exported, _)| exported == name).unwrap();
        assert!(seen.equal(&checkpoint.load(name).unwrap()), "{name}");
    }
}
