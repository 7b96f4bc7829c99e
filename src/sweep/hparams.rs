//! The sweep for TensorBoard's HParams tab: one row per trial, with only the swept parameters and the metric.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::TrialStatus;
use super::results::{Results, TrialResult};
use oss_runs::monitor::{HParam, TensorBoard};
use oss_runs::run_dir::{SweepDir, write_json};

/// What has been written: for each run, its steps, its metric and whether it is done.
type Written = BTreeMap<String, (u64, Option<f64>, bool)>;

/// Updates the table. Called while the ledger is locked, so that only one process writes at a time. Event files are
/// append-only: a running TensorBoard picks up new values.
///
/// # Errors
/// The record of what has been written cannot be saved.
pub fn write(results: &Results, dir: &SweepDir) -> Result<()> {
    let root = dir.tensorboard();
    fs::create_dir_all(&root).with_context(|| format!("cannot write to {}", root.display()))?;
    let memory = root.join("written.json");
    let mut written: Written =
        fs::read(&memory).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let before = written.clone();
    for row in results.trials.iter().filter(|row| row.value.is_some() && row.status != TrialStatus::RUNNING) {
        let now = (row.step, row.value, row.status == TrialStatus::DONE);
        if written.get(&row.run) != Some(&now) {
            let mut board = TensorBoard::open(&root.join(format!("trial-{:03}", row.trial)), None);
            if !before.contains_key(&row.run) {
                board.hparams(&values(row), &[row.metric.name()]);
            }
            if let Some(value) = row.value {
                board.scalar(row.metric.name(), row.step, value);
            }
            if row.status == TrialStatus::DONE {
                board.finish();
            }
            written.insert(row.run.clone(), now);
        }
    }
    if written != before {
        write_json(&memory, &written).with_context(|| format!("cannot write {}", memory.display()))?;
    }
    Ok(())
}

fn values(row: &TrialResult) -> BTreeMap<String, HParam> {
    let value = |value: &Value| match value {
        Value::Bool(flag) => HParam::Flag(*flag),
        Value::Number(number) => HParam::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => HParam::Text(text.clone()),
        other => HParam::Text(other.to_string()),
    };
    row.values.iter().map(|(key, v)| (key.clone(), value(v))).collect()
}
