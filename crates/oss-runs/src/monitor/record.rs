//! Records the metrics of a step in two places that always agree.

use std::collections::HashSet;

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};

use super::{MetricsError, MetricsLog, TensorBoard};
use crate::run_dir::RunDir;

/// Writes metrics to `metrics.jsonl` and, value by value, to TensorBoard.
#[derive(Debug)]
pub struct Recorder {
    metrics: MetricsLog,
    tensorboard: TensorBoard,
    shown: ShownCounts,
}

impl Recorder {
    /// Opens both for a run that resumes from the checkpoint of step `resume_at`, or starts from nothing. Entries of
    /// later steps are removed from `metrics.jsonl` and hidden in TensorBoard.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be read or written. TensorBoard's files are only a view: the run continues without
    /// them.
    pub fn open(run: &RunDir, resume_at: Option<u64>) -> Result<Self, MetricsError> {
        let metrics = MetricsLog::open(&run.metrics(), resume_at)?;
        let mut shown = ShownCounts::default();
        for line in MetricsLog::read(&run.metrics())? {
            for (tag, value) in scalars(&line.fields) {
                shown.includes(&tag, value);
            }
        }
        let purge_from = resume_at.map_or(0, |step| step + 1);
        Ok(Self { metrics, tensorboard: TensorBoard::open(&run.tensorboard(), Some(purge_from)), shown })
    }

    /// Records one line, which is visible in both places when this returns; `metrics.jsonl` also has the time. See
    /// [`scalars`] for the tags.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be written.
    pub fn record(&mut self, step: u64, fields: &Map<String, Value>) -> Result<(), MetricsError> {
        let mut line = fields.clone();
        line.insert(TIME.to_owned(), Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true).into());
        self.metrics.append(step, &line)?;
        for (tag, value) in scalars(fields) {
            if self.shown.includes(&tag, value) {
                self.tensorboard.scalar(&tag, step, value);
            }
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

/// Field of `metrics.jsonl` with the time at which a line was written, in UTC (RFC 3339).
pub const TIME: &str = "time";

/// The counts of dead experts that TensorBoard shows: most layers never have any, and their curves would only hide the
/// others.
#[derive(Debug, Default)]
struct ShownCounts(HashSet<String>);

impl ShownCounts {
    /// Whether `value` is shown. Zeros of a count are left out until it has had another value.
    fn includes(&mut self, tag: &str, value: f64) -> bool {
        if !tag.contains("dead_experts") || self.0.contains(tag) {
            return true;
        }
        value != 0.0 && self.0.insert(tag.to_owned())
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

/// Tags of details start with this. TensorBoard orders groups by name, so they follow `train` and `validation`.
pub const DETAILS: &str = "verbose/";

/// The numbers in `fields`, each with its tag. Objects and lists are details, with a curve per name or position:
/// `verbose/expert_load/03`. A `null` stands for a number that JSON cannot represent and becomes NaN; strings and
/// booleans have no curve.
pub fn scalars(fields: &Map<String, Value>) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Array(_) | Value::Object(_) => collect(format!("{DETAILS}{name}"), value, &mut found),
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
    fn a_count_is_shown_from_its_first_value_above_zero() {
        let mut counts = ShownCounts::default();
        let mut shown = |tag: &str, values: &[f64]| -> Vec<bool> {
            values.iter().map(|value| counts.includes(tag, *value)).collect()
        };
        assert_eq!(shown("verbose/dead_experts_layers/03", &[0.0, 2.0, 0.0]), [false, true, true]);
        assert_eq!(shown("verbose/dead_experts_layers/04", &[0.0]), [false]);
        assert_eq!(shown("train/dead_experts", &[0.0, 1.0]), [false, true]);
        assert_eq!(shown("train/lr", &[0.0]), [true]);
    }

    #[test]
    fn a_resumed_run_knows_which_counts_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        let dead = |first: u64, second: u64| match json!({"dead_experts_layers": [first, second]}) {
            Value::Object(fields) => fields,
            other => panic!("{other}"),
        };
        let mut recorder = Recorder::open(&run, None).unwrap();
        recorder.record(1, &dead(0, 2)).unwrap();
        recorder.record(2, &dead(3, 0)).unwrap();
        let mut resumed = Recorder::open(&run, Some(1)).unwrap();
        assert!(!resumed.shown.includes("verbose/dead_experts_layers/00", 0.0), "step 2 is gone");
        assert!(resumed.shown.includes("verbose/dead_experts_layers/01", 0.0));
    }

    #[test]
    fn every_number_has_a_tag() {
        let line = json!({"loss": 2.5, "val_loss": 2.25, "bad": null, "kind": "eval", "ok": true,
                          "expert_load": [0.5, 1], "memory": {"cpu": 7}});
        let found = scalars(line.as_object().unwrap());
        let expected = [
            ("train/loss", 2.5),
            ("validation/loss", 2.25),
            ("train/bad", f64::NAN),
            ("verbose/expert_load/00", 0.5),
            ("verbose/expert_load/01", 1.0),
            ("verbose/memory/cpu", 7.0),
        ];
        assert_eq!(found.len(), expected.len());
        for ((tag, value), (expected_tag, expected_value)) in found.iter().zip(expected) {
            assert_eq!(tag, expected_tag);
            assert_eq!(value.to_bits(), expected_value.to_bits());
        }
    }
}
