//! Throughput measured by `plan --calibrate`, stored next to the prepared data.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::keys;
use oss_config::Experiment;
use oss_config::error::Hint;
use oss_runs::run_dir::{Host, RunsDir, write_json};

/// Measured training throughput.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Tokens per second of all ranks, not counting communication.
    pub tokens_per_second: f64,
    /// Time of the measurement.
    pub measured: DateTime<Utc>,
}

/// An earlier measurement of an experiment like this one, on this machine with this version of the program, if any.
pub fn recall(experiment: &Experiment, runs: &RunsDir) -> Option<Calibration> {
    known(runs).get(&key(experiment)).copied()
}

/// Stores a measurement.
///
/// # Errors
/// The runs directory cannot be written.
pub fn remember(experiment: &Experiment, runs: &RunsDir, tokens_per_second: f64) -> Result<Calibration> {
    let calibration = Calibration { tokens_per_second, measured: Utc::now() };
    let path = path(runs);
    let mut all = known(runs);
    all.insert(key(experiment), calibration);
    let folder = path.parent().unwrap_or(&path);
    fs::create_dir_all(folder)
        .and_then(|()| write_json(&path, &all))
        .with_context(|| format!("cannot write {}", path.display()))
        .hint("choose another directory with --runs-dir")?;
    Ok(calibration)
}

fn path(runs: &RunsDir) -> PathBuf {
    runs.prepared("calibrations.json")
}

/// A missing or corrupted file counts as no measurements.
fn known(runs: &RunsDir) -> BTreeMap<String, Calibration> {
    fs::read(path(runs)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Everything that throughput depends on, and little else: a changed learning rate needs no new measurement.
fn key(experiment: &Experiment) -> String {
    let Experiment { model, train, sharding, optimizer, .. } = experiment;
    let mut train = train.clone();
    (train.steps, train.max_minutes) = (0, None);
    let host = Host::this();
    let document = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "machine": [host.name, host.cpu, host.cores.to_string()],
        "model": model,
        "train": train,
        "sharding": sharding,
        "optimizer": [json!(optimizer.kind), json!(optimizer.state_dtype), json!(optimizer.update)],
    });
    keys::hash(&document).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_applies_to_similar_experiments() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let mut experiment = Experiment::default();
        assert_eq!(recall(&experiment, &runs), None);
        let measured = remember(&experiment, &runs, 1234.5).unwrap();
        experiment.optimizer.lr = 7.0;
        experiment.train.steps = 7;
        assert_eq!(recall(&experiment, &runs), Some(measured));
        experiment.train.sequence_length = 7;
        assert_eq!(recall(&experiment, &runs), None);
        fs::write(path(&runs), "damaged").unwrap();
        remember(&experiment, &runs, 2.0).unwrap();
        assert_eq!(recall(&experiment, &runs).unwrap().tokens_per_second, 2.0);
    }
}
