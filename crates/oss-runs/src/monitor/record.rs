//! Records the metrics of a step in two places that always agree.

use serde_json::{Map, Value};

use super::{MetricsError, MetricsLog, TensorBoard};
use crate::run_dir::RunDir;

/// Writes metrics to `metrics.jsonl` and, value by value, to TensorBoard.
#[derive(Debug)]
pub struct Recorder {
    metrics: MetricsLog,
    tensorboard: TensorBoard,
}

impl Recorder {
    /// Opens both for a run that resumes from the checkpoint of step `resume_at`, or starts from nothing. Entries of
    /// later steps are removed from `metrics.jsonl` and hidden in TensorBoard.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be read or written. TensorBoard's files are only a view: the run continues without
    /// them.
    pub fn open(run: &RunDir, resume_at: Option<u64>) -> Result<Self, MetricsError> {
        Ok(Self {
            metrics: MetricsLog::open(&run.metrics(), resume_at)?,
            tensorboard: TensorBoard::open(&run.tensorboard(), Some(resume_at.map_or(0, |step| step + 1))),
        })
    }

    /// Opens both to append to them.
    ///
    /// # Errors
    /// As for [`Recorder::open`].
    pub fn open_at_end(run: &RunDir) -> Result<Self, MetricsError> {
        Ok(Self {
            metrics: MetricsLog::open_at_end(&run.metrics())?,
            tensorboard: TensorBoard::open(&run.tensorboard(), None),
        })
    }

    /// Records one line, which is visible in both places when this returns. See [`scalars`] for its tags.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be written.
    pub fn record(&mut self, step: u64, fields: &Map<String, Value>) -> Result<(), MetricsError> {
        self.metrics.append(step, fields)?;
        for (tag, value) in scalars(fields) {
            self.tensorboard.scalar(&tag, step, value);
        }
        self.tensorboard.flush();
        Ok(())
    }

    /// Syncs the metrics to disk; a checkpoint calls this before it commits.
    ///
    /// # Errors
    /// If the disk is full or a call fails.
    pub fn sync(&mut self) -> Result<(), MetricsError> {
        self.metrics.sync()
    }

    /// TensorBoard alone, for data other than numbers: samples and hyperparameters.
    pub fn tensorboard(&mut self) -> &mut TensorBoard {
        &mut self.tensorboard
    }
}

/// The tag of a metric's curve. TensorBoard groups curves by the part before the `/`: `val_loss` is `validation/loss`,
/// `loss` is `train/loss`.
pub fn tag(metric: &str) -> String {
    match metric.strip_prefix("val_") {
        Some(metric) => format!("validation/{metric}"),
        None => format!("train/{metric}"),
    }
}

/// The numbers in `fields`, each with its tag. Objects and lists are groups, with a curve per name or position:
/// `expert_load/03`. A `null` stands for a number that JSON cannot represent and becomes NaN; strings and booleans have
/// no curve.
pub fn scalars(fields: &Map<String, Value>) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Array(_) | Value::Object(_) => collect(name.clone(), value, &mut found),
            _ => collect(tag(name), value, &mut found),
        }
    }
    found
}

fn collect(tag: String, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64().map(|number| (tag, number))),
        Value::Null => found.push((tag, f64::NAN)),
        Value::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                collect(format!("{tag}/{position:02}"), item, found);
            }
        }
        Value::Object(items) => {
            for (name, item) in items {
                collect(format!("{tag}/{name}"), item, found);
            }
        }
        Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_number_has_a_tag() {
        let line = json!({"loss": 2.5, "val_loss": 2.25, "bad": null, "kind": "eval", "ok": true,
                          "expert_load": [0.5, 1], "memory": {"cpu": 7}});
        let found = scalars(line.as_object().unwrap());
        let expected = [
            ("train/loss", 2.5),
            ("validation/loss", 2.25),
            ("train/bad", f64::NAN),
            ("expert_load/00", 0.5),
            ("expert_load/01", 1.0),
            ("memory/cpu", 7.0),
        ];
        assert_eq!(found.len(), expected.len());
        for ((tag, value), (expected_tag, expected_value)) in found.iter().zip(expected) {
            assert_eq!(tag, expected_tag);
            assert_eq!(value.to_bits(), expected_value.to_bits());
        }
    }
}
