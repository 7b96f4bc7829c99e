//! Generates many run directories like those of training, to time commands that read them all.
//!
//!     cargo bench --bench runs -- DIRECTORY
//!
//! Writes a thousand quickstart runs into DIRECTORY, with manifests and metrics of realistic size, but no checkpoints. Prints
//! one JSON document: the number of runs and the bytes of their manifests and metrics.

#![expect(clippy::print_stdout, reason = "its output is data")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use chrono::{TimeDelta, Utc};
use oss_config::Overrides;
use oss_run::plan::Stage;
use oss_runs::monitor::MetricsLog;
use oss_runs::run_dir::{Environment, Exit, Manifest, RunDir, RunsDir, Segment, StageRecord, StageState};
use serde_json::{Map, Value, json};

const RUNS: u64 = 1000;
const STEPS: u64 = 600;
const EVALUATE_EVERY_STEPS: u64 = 100;

fn main() -> Result<()> {
    let directory = env::args_os().skip(1).find(|word| !word.to_string_lossy().starts_with('-'));
    let runs = RunsDir::new(directory.map(PathBuf::from).context("pass the directory to write into")?);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/quickstart.toml");
    let resolved = oss_config::load(&file, &Overrides::default())?;
    let set = resolved.provenance.iter().filter(|(_, by)| by.is_explicit());
    let layers: BTreeMap<String, String> = set.map(|(key, by)| (key.to_owned(), by.to_string())).collect();
    let document = serde_json::to_value(&resolved.experiment)?;
    let environment = Environment::capture(Path::new("."));
    for n in 0..RUNS {
        let run = runs.run("quickstart", &format!("{n:010x}"));
        run.create()?;
        manifest(&run, n, &document, &layers, &environment).save(&run)?;
        metrics(&run, n)?;
    }
    let bytes = |path: fn(&RunDir) -> PathBuf| -> Result<u64> {
        runs.list()?.iter().map(|run| Ok(fs::metadata(path(run))?.len())).sum()
    };
    println!(
        "{}",
        json!({ "runs": RUNS, "manifest_bytes": bytes(RunDir::manifest)?, "metrics_bytes": bytes(RunDir::metrics)? })
    );
    Ok(())
}

fn manifest(
    run: &RunDir,
    n: u64,
    document: &Value,
    layers: &BTreeMap<String, String>,
    environment: &Environment,
) -> Manifest {
    let mut manifest = Manifest::new(run.id(), run.name(), document.clone());
    manifest.experiment["optimizer"]["lr"] = json!(1e-5 * (n + 1) as f64);
    manifest.layers.clone_from(layers);
    let digest = blake3::hash(&n.to_le_bytes()).to_hex().to_string();
    manifest.inputs = json!({
        "sources": [{
            "name": "main",
            "weight": 1.0,
            "identity": {"kind": "builtin", "corpus": "stories", "version": 1, "seed": 1, "stories": 15000},
        }],
        "validation": null,
        "tokenizer": digest,
        "initial": null,
    });
    manifest.keys.insert("trajectory".to_owned(), digest.clone());
    let started = Utc::now() - TimeDelta::minutes((RUNS - n) as i64);
    let files: Vec<Value> = ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json"]
        .iter()
        .map(|name| json!({"path": format!("export/{name}"), "bytes": 1000, "blake3": digest}))
        .collect();
    for stage in Stage::ALL {
        let record = StageRecord {
            state: StageState::Done,
            key: digest.clone(),
            version: 1,
            // Training depends on most keys, the other stages on only a few.
            values: layers
                .keys()
                .filter(|_| stage == Stage::Train)
                .map(|key| (key.clone(), json!(1)))
                .collect(),
            inputs: BTreeMap::from([("weights".to_owned(), digest.clone())]),
            outputs: BTreeMap::from([("files".to_owned(), json!(files))]),
            started,
            finished: Some(started),
            reason: Some("never ran".to_owned()),
        };
        manifest.stages.insert(stage.name().to_owned(), record);
    }
    manifest.segments.push(Segment {
        environment: environment.clone(),
        started,
        finished: Some(started + TimeDelta::seconds(200)),
        exit: Some(Exit::Done),
        ..Segment::default()
    });
    manifest
}

fn metrics(run: &RunDir, n: u64) -> Result<()> {
    let mut log = MetricsLog::open(&run.metrics(), None)?;
    let mut append = |step: u64, fields: Value| -> Result<()> {
        let none = Map::new();
        Ok(log.append(step, fields.as_object().unwrap_or(&none))?)
    };
    for step in 1..=STEPS {
        let loss = 7.0 / (step as f64).sqrt() + n as f64 * 1e-4;
        append(
            step,
            json!({
                "loss": loss,
                "lr": 0.002 / step as f64,
                "grad_norm": 1.0 / loss,
                "balance_loss": 2.08,
                "dead_experts": 0,
                "max_load": 2.375,
                "max_load_layers": [1.4140625, 1.904296875, 2.0078125, 2.251953125, 1.478515625, 2.375],
                "tokens_per_second": 5826.069438981517,
                "tflops": 0.08369363148452304,
                "peak_memory_bytes": 512_618_496,
            }),
        )?;
        if step.is_multiple_of(EVALUATE_EVERY_STEPS) {
            append(step, json!({"val_loss": loss + 0.1, "val_perplexity": loss.exp(), "val_max_load": 2.5}))?;
        }
    }
    Ok(())
}
