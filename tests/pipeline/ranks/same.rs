//! Any number of ranks gives the same results as a single one.

use std::fs;

use oss_train::checkpoint::Checkpoint;
use serde_json::Value;
use tch::Tensor;

use super::{exported, newest_checkpoint, on, project};
use crate::project::{Project, json, losses};

/// Shardings to compare with a single rank: the strategy and the number of ranks.
const WAYS: [(&str, usize); 7] =
    [("fsdp", 1), ("fsdp", 2), ("fsdp", 3), ("fsdp", 4), ("ddp", 2), ("ddp", 3), ("hsdp", 4)];

/// Loss, gradient norm and validation loss of every step, in order.
fn numbers(project: &Project) -> Vec<(String, u64, f64)> {
    let text = fs::read_to_string(project.the_run().join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |line: &Value, name: &str| {
        Some((name.to_owned(), line["step"].as_u64().unwrap(), line[name].as_f64()?))
    };
    let names = ["loss", "grad_norm", "val_loss", "balance_loss"];
    lines.iter().flat_map(|line| names.iter().filter_map(|name| number(line, name))).collect()
}

/// Trains for thirty steps, to compare one rank with several.
fn trained(values: &[&str], options: &str) -> Project {
    let project = project(&["train.steps = 30", "evaluate.every_steps = 15", "checkpoint.every_steps = 30"]);
    project.set(values);
    project.oss_run(&format!("tiny.toml --until train {options}")).ends_with(0);
    project
}

fn compare(values: &[&str], ways: &[(&str, usize)], bound: f64) {
    let alone = numbers(&trained(values, ""));
    assert!(alone.len() >= 90);
    for (strategy, ranks) in ways {
        let shared = numbers(&trained(values, &on(strategy, *ranks)));
        assert_eq!(shared.len(), alone.len());
        for (one, many) in alone.iter().zip(&shared) {
            assert_eq!((&one.0, one.1), (&many.0, many.1));
            let error = (many.2 / one.2 - 1.0).abs();
            assert!(error <= bound, "{} of step {} on {ranks} ranks ({strategy}): {error:e}", one.0, one.1);
        }
    }
}

#[test]
fn losses_and_gradient_norms_match_one_rank() {
    compare(&[], &WAYS, 1e-5);
}

/// Every parameter's gradient in the first step, by name, up to a common factor: the first moments after that step.
fn first_gradients(options: &str) -> Vec<(String, Tensor)> {
    let project = project(&["optimizer.max_grad_norm = 0.0"]);
    project.oss_run(&format!("tiny.toml --until train --stop-at-step 1 {options}")).ends_with(75);
    let checkpoint = Checkpoint::open(&newest_checkpoint(&project.the_run())).unwrap();
    let moments = checkpoint.names().filter(|name| name.starts_with("optimizer.exp_avg/"));
    moments.map(|name| (name.to_owned(), checkpoint.load(name).unwrap())).collect()
}

#[test]
fn every_gradient_of_the_first_step_matches_one_rank() {
    let alone = first_gradients("");
    assert_eq!(alone.len(), 2 * 17 + 3);
    for (strategy, ranks) in WAYS {
        for ((name, one), (of, many)) in alone.iter().zip(first_gradients(&on(strategy, ranks))) {
            assert_eq!(*name, of);
            let error = f64::try_from((many - one).norm() / one.norm()).unwrap();
            assert!(error <= 1e-5, "{name} on {ranks} ranks ({strategy}): {error:e}");
        }
    }
}

#[test]
fn losses_match_with_checkpointing_documents_and_two_sequences_at_once() {
    let values = [
        "train.activation_checkpointing = true",
        "train.document_mask = true",
        "train.micro_batch_size = 2",
        "train.global_batch_size = 24",
    ];
    compare(&values, &[("fsdp", 3), ("hsdp", 4)], 1e-5);
}

#[test]
fn losses_match_in_half_precision() {
    compare(&["train.precision = 'bf16'"], &[("fsdp", 2)], 5e-3);
    compare(&["train.precision = 'f16'"], &[("hsdp", 4)], 5e-3);
}

#[test]
fn losses_match_with_updates_in_the_backward_pass() {
    let ways = [("fsdp", 2), ("fsdp", 4), ("ddp", 2), ("hsdp", 4)];
    compare(&["optimizer.update = 'in_backward'"], &ways, 1e-5);
}

#[test]
fn losses_match_with_muon() {
    // Muon's products are in bf16 if the processor supports it; a difference in the last bit is 0.4 % of the value.
    compare(&["optimizer.kind = 'muon'"], &[("fsdp", 3), ("ddp", 2), ("hsdp", 4)], 2e-3);
    compare(&["optimizer.kind = 'muon'", "optimizer.update = 'in_backward'"], &[("fsdp", 2)], 2e-3);
}

#[test]
fn losses_match_with_low_precision_state() {
    let values = [
        "train.precision = 'bf16'",
        "train.param_dtype = 'bf16'",
        "optimizer.state_dtype = '8bit'",
        "optimizer.update = 'in_backward'",
    ];
    compare(&values, &[("fsdp", 2), ("hsdp", 4)], 5e-3);
}

#[test]
fn a_dry_run_simulates_one_rank_of_many() {
    let project = project(&["model.hidden_size = 64", "model.intermediate_size = 64"]);
    let plan = |options: &str| {
        let ended = project.oss_run(&format!("plan tiny.toml --json {options}")).ends_with(0);
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    for (strategy, ranks, rank) in [("fsdp", 6, 5), ("hsdp", 6, 1), ("ddp", 3, 0)] {
        let options = format!("{} --dry-run --rank {rank} --steps 2", on(strategy, ranks));
        let planned = plan(&options);
        let dry = &planned["dry_run"];
        assert_eq!((dry["rank"].as_u64(), dry["ranks"].as_u64()), (Some(rank), Some(ranks as u64)));
        // Weights and both moments of the slice, without padding, and a header.
        let state = planned["memory"]["state"].as_u64().unwrap() / 4 * 3;
        let file = dry["file_bytes"].as_u64().unwrap();
        let written = dry["saving_seconds"].as_f64().unwrap();
        assert!(file < state + 200_000 && file > state / 2 && written > 0.0, "{dry} {state}");
        assert!(dry["training_peak_bytes"].as_u64().unwrap() > 0);
    }
    // Nothing is left behind, neither a run nor the rank's file.
    let left: Vec<_> =
        fs::read_dir(project.path("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| !path.to_string_lossy().contains("dry-run")), "{left:?}");
    assert!(project.runs().is_empty());
    let ended = project.oss_run(&format!("plan tiny.toml {} --dry-run --rank 3", on("fsdp", 3))).ends_with(1);
    assert!(ended.stderr.contains("pass a rank in 0..=2"), "{}", ended.stderr);
}

#[test]
fn initial_weights_are_bit_identical_on_any_ranks() {
    let first = |options: &str| {
        let project = project(&[]);
        project.oss_run(&format!("tiny.toml --until train --stop-at-step 0 {options}")).ends_with(75);
        project.oss_run("export last --step 0 --out first").ends_with(0);
        exported(&project.path("first"))
    };
    let alone = first("");
    for (strategy, ranks) in WAYS {
        assert!(first(&on(strategy, ranks)) == alone, "{ranks} ranks ({strategy})");
    }
}

#[test]
fn repeated_runs_are_bit_identical_also_with_background_checkpoints() {
    for (strategy, ranks) in [("fsdp", 3), ("ddp", 2), ("hsdp", 4)] {
        let run = |more: &str| {
            let project = project(&[]);
            project.oss_run(&format!("tiny.toml {} {more}", on(strategy, ranks))).ends_with(0);
            let run = project.the_run();
            (exported(&run.join("export")), losses(&run))
        };
        let once = run("");
        assert!(once == run(""), "{ranks} ranks ({strategy})");
        assert!(once == run("--set checkpoint.background=true"), "{ranks} ranks ({strategy}), background");
    }
}

#[test]
fn evaluation_samples_and_exports_are_the_same_on_any_ranks() {
    let project = project(&[]);
    project.oss_run(&format!("tiny.toml {}", on("fsdp", 3))).ends_with(0);
    let said = |command: &str, ranks: usize| {
        let said = project.oss_run(&format!("{command} --ranks {ranks} --json")).ends_with(0).stdout;
        let mut said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said.as_object_mut().unwrap().remove("decoding_seconds");
        said
    };
    let questions = [
        "evaluate last",
        "evaluate last --data text.txt",
        "sample last --prompt The --prompt A --greedy --max-new-tokens 20",
        "sample last --prompt The --temperature 1.3 --seed 7 --num-samples 3 --max-new-tokens 20",
    ];
    for question in questions {
        let alone = said(question, 1);
        for ranks in [2, 3, 4] {
            assert_eq!(said(question, ranks), alone, "{question} on {ranks} ranks");
        }
    }
    let before = exported(&project.the_run().join("export"));
    project.oss_run(&format!("tiny.toml --force export {}", on("ddp", 2))).ends_with(0);
    assert!(exported(&project.the_run().join("export")) == before);
}

#[test]
fn a_run_resumes_on_a_different_number_of_ranks() {
    let whole = numbers(&trained(&["train.global_batch_size = 24"], ""));
    let project = project(&[
        "train.global_batch_size = 24",
        "train.steps = 30",
        "evaluate.every_steps = 15",
        "checkpoint.every_steps = 30",
    ]);
    let ways = [("fsdp", 2), ("fsdp", 8), ("none", 1), ("ddp", 3), ("hsdp", 4)];
    for (part, (strategy, ranks)) in ways.into_iter().enumerate() {
        let until = 5 * (part + 1);
        let options = format!("--until train --stop-at-step {until} {}", on(strategy, ranks));
        project.oss_run(&format!("tiny.toml {options}")).ends_with(75);
        assert_eq!(json(&project.the_run().join("manifest.json"))["segments"][part]["ranks"], ranks);
    }
    project.oss_run("resume last --set sharding.strategy=fsdp --set sharding.ranks=3").ends_with(0);
    for (one, many) in whole.iter().zip(numbers(&project)) {
        assert_eq!((&one.0, one.1), (&many.0, many.1));
        assert!((many.2 / one.2 - 1.0).abs() <= 1e-5, "{} of step {}", one.0, one.1);
    }
}
