//! The program on several ranks of this machine, with Gloo: what they compute, how they rendezvous, and how they end.

mod ends;
mod meeting;
mod same;

use std::fs;
use std::path::{Path, PathBuf};

use crate::project::Project;

/// A small experiment whose batch size is divisible by 1, 2, 3 and 4 ranks. It does not request ranks itself.
fn project(values: &[&str]) -> Project {
    let project = Project::with(&[
        "train.global_batch_size = 12",
        "train.micro_batch_size = 1",
        "model.num_local_experts = 4",
        "optimizer.lr = 3e-4",
        "export.dtype = 'f32'",
        "sharding.timeout_seconds = 60",
        "evaluate.max_tokens = 5000",
    ]);
    project.set(values);
    project
}

/// The options that run an experiment on `ranks` ranks.
fn on(strategy: &str, ranks: usize) -> String {
    let replicas = if strategy == "hsdp" { " --set sharding.shard_degree=2" } else { "" };
    format!("--set sharding.strategy={strategy} --set sharding.ranks={ranks}{replicas}")
}

/// The bytes of the only weight file of an export.
fn exported(directory: &Path) -> Vec<u8> {
    fs::read(directory.join("model.safetensors")).unwrap()
}

/// The newest checkpoint of a run.
fn newest_checkpoint(run: &Path) -> PathBuf {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.join("manifest.json").exists()).max().unwrap()
}
