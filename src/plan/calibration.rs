//! Speeds that were measured by `plan --calibrate`, remembered beside the prepared data.

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

/// How fast a device trains a kind of experiment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Tokens a second of all ranks, if what they send each other costs nothing.
    pub tokens_per_second: f64,
    /// When it was measured.
    pub measured: DateTime<Utc>,
}

/// What was measured before of an experiment like this one, on this machine by this program; none if nothing was.
pub fn recall(experiment: &Experiment, runs: &RunsDir) -> Option<Calibration> {
    known(runs).get(&key(experiment)).copied()
}

/// Remembers what was measured now.
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
        .hint("give another place with --runs-dir")?;
    Ok(calibration)
}

fn path(runs: &RunsDir) -> PathBuf {
    runs.prepared("calibrations.json")
}

/// A lost or damaged file means that nothing was measured.
fn known(runs: &RunsDir) -> BTreeMap<String, Calibration> {
    fs::read(path(runs)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Everything that speed depends on, and little else: a changed learning rate asks for no new measurement.
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
        "optimizer": [json!(optimizer.kind), json!(optimizer.state), json!(optimizer.update)],
    });
    keys::hash(&document).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_known_for_the_like() {
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
