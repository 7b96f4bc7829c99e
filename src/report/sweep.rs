//! The runs of a sweep's trials.

use crate::sweep::{Results, TrialResult};
use oss_runs::run_dir::{RunDir, RunsDir};

/// The runs of the best trials that still exist, at most `most`.
pub fn best_runs(sweep: &Results, runs: &RunsDir, most: usize) -> Vec<RunDir> {
    let measured = sweep.ranked().into_iter().filter(|row| row.value.is_some());
    measured.map(|row| runs.run(&sweep.name, &row.run)).filter(RunDir::exists).take(most).collect()
}

/// The trial that `run` belongs to.
pub fn trial_of<'a>(sweep: &'a Results, run: &RunDir) -> Option<&'a TrialResult> {
    let is_here = run.root().parent().is_some_and(|folder| folder.ends_with(&sweep.name));
    sweep.trials.iter().find(|row| is_here && row.run == run.id())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use oss_config::{Direction, SweepMetric};

    fn row(trial: u64, run: &str, state: &str, value: Option<f64>) -> TrialResult {
        let row = json!({
            "trial": trial, "run": run, "state": state, "values": {"optimizer.lr": 0.1}, "metric": "val_loss",
            "direction": "minimize", "value": value, "step": 3, "steps": 3, "seconds": 4.5
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn best_runs_are_existing_runs_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let rows = vec![
            row(1, "aa", "done", Some(3.0)),
            row(2, "bb", "done", Some(2.0)),
            row(3, "cc", "running", None),
        ];
        let sweep = Results::new("lr".into(), SweepMetric::ValLoss, Direction::Minimize, rows);
        assert_eq!(best_runs(&sweep, &runs, 8), []);
        let made = ["aa", "bb", "cc"].map(|id| {
            let run = runs.run("lr", id);
            run.create().unwrap();
            fs::write(run.manifest(), "{}").unwrap();
            run
        });
        assert_eq!(best_runs(&sweep, &runs, 8), [made[1].clone(), made[0].clone()]);
        assert_eq!(best_runs(&sweep, &runs, 1), [made[1].clone()]);
        assert_eq!(trial_of(&sweep, &made[0]).map(|row| row.trial), Some(1));
        assert_eq!(trial_of(&sweep, &runs.run("other", "aa")), None);
    }
}
