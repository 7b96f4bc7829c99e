//! The trials of a sweep, as `results.jsonl` tells them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::run_dir::{RunDir, RunsDir};

/// A sweep and what came out of its trials so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sweep {
    /// Its folder under the directory of all runs.
    pub name: String,
    /// What the trials are compared by, such as `val_loss`.
    pub metric: String,
    /// Whether more of it is better.
    pub maximize: bool,
    /// The trials by number, each as its last line has it.
    pub trials: Vec<Trial>,
}

/// One trial. What else a line holds is passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its number, from 1.
    pub trial: u64,
    /// Its run's id; none before it was started.
    #[serde(default)]
    pub run: Option<String>,
    /// `done`, `running`, `waiting`, `paused`, `stopped` (ended early) or `failed`.
    pub state: String,
    /// The values that were set, by key.
    pub values: Map<String, Value>,
    /// The metric; none before it was measured, or where it is no number.
    #[serde(default)]
    pub value: Option<f64>,
    /// The step at which it was measured.
    #[serde(default)]
    pub step: Option<u64>,
    /// Steps that it may train.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Seconds that it took.
    #[serde(default)]
    pub seconds: Option<f64>,
}

/// A trial with what is the same on every line.
#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    trial: Trial,
    #[serde(default)]
    metric: Option<String>,
    #[serde(default)]
    direction: Option<String>,
}

/// Why a sweep cannot be reported.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// There is none.
    #[error("there is no sweep {name} ({} is missing); give the name of a folder that `oss-run sweep` made", .path.display())]
    Missing {
        /// What was asked for.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// No trial is known yet.
    #[error("{} tells of no trial yet; let the sweep run", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line before a torn last one is not what was written.
    #[error("{}:{line} is damaged ({what}); remove that line", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The system refuses.
    #[error("cannot read {}; check its permissions", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Sweep {
    /// Reads the results of the sweep `name`, which may be under way.
    ///
    /// # Errors
    /// There is no such sweep, none of its trials is known, or a line is damaged.
    pub fn read(runs: &RunsDir, name: &str) -> Result<Self, ResultsError> {
        let path = runs.sweep(name).results();
        let text = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ResultsError::Missing { name: name.to_owned(), path: path.clone() },
            _ => ResultsError::Io { path: path.clone(), source },
        })?;
        let text = String::from_utf8_lossy(&text);
        let (mut metric, mut maximize, mut trials) = (None, false, BTreeMap::new());
        for (index, line) in
            text.split_inclusive('\n').enumerate().filter(|(_, line)| !line.trim().is_empty())
        {
            match serde_json::from_str::<Line>(line) {
                Ok(Line { trial, metric: named, direction }) => {
                    metric = named.or(metric);
                    maximize = direction.map_or(maximize, |direction| direction.starts_with("max"));
                    trials.insert(trial.trial, trial);
                }
                // Torn: its writer is at it, or was killed.
                Err(_) if !line.ends_with('\n') => {}
                Err(error) => {
                    return Err(ResultsError::Damaged { path, line: index + 1, what: error.to_string() });
                }
            }
        }
        if trials.is_empty() {
            return Err(ResultsError::Empty { path });
        }
        Ok(Self {
            name: name.to_owned(),
            metric: metric.unwrap_or_else(|| "value".to_owned()),
            maximize,
            trials: trials.into_values().collect(),
        })
    }

    /// The trials that have a value, the best first; those that did not come to their end after those that did.
    pub fn ranked(&self) -> Vec<&Trial> {
        let mut ranked: Vec<(f64, &Trial)> =
            self.trials.iter().filter_map(|trial| Some((trial.value?, trial))).collect();
        ranked.sort_by(|(a, _), (b, _)| if self.maximize { b.total_cmp(a) } else { a.total_cmp(b) });
        ranked.sort_by_key(|(_, trial)| trial.state != "done");
        ranked.into_iter().map(|(_, trial)| trial).collect()
    }

    /// The runs of the best trials, `most` at most, that are still there.
    pub fn best_runs(&self, runs: &RunsDir, most: usize) -> Vec<RunDir> {
        let run = |trial: &Trial| Some(runs.run(&self.name, trial.run.as_deref()?));
        self.ranked().into_iter().filter_map(run).filter(RunDir::exists).take(most).collect()
    }

    /// The trial whose run `run` is.
    pub fn trial_of(&self, run: &RunDir) -> Option<&Trial> {
        let is_here = run.root().parent().is_some_and(|folder| folder.ends_with(&self.name));
        self.trials.iter().find(|trial| is_here && trial.run.as_deref() == Some(&run.id()))
    }

    /// The keys that the trials set, in the order in which they first appear.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = Vec::new();
        for key in self.trials.iter().flat_map(|trial| trial.values.keys()) {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(text: &str) -> (tempfile::TempDir, Result<Sweep, ResultsError>) {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let path = runs.sweep("lr").results();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        let read = Sweep::read(&runs, "lr");
        (dir, read)
    }

    const LINES: &str = r#"{"trial":1,"run":"aa","state":"running","values":{"optimizer.lr":0.1},"metric":"val_loss","direction":"minimize","value":null}
{"trial":2,"run":"bb","state":"done","values":{"optimizer.lr":0.2,"run.seed":1},"metric":"val_loss","direction":"minimize","value":2.0,"step":3,"steps":3,"seconds":4.5,"more":[]}
{"trial":1,"run":"aa","state":"done","values":{"optimizer.lr":0.1},"metric":"val_loss","direction":"minimize","value":3.0}
"#;

    #[test]
    fn the_last_line_of_a_trial_counts_and_a_torn_one_does_not() {
        let (_dir, read) = sweep(&format!("{LINES}{{\"trial\":3,\"ru"));
        let read = read.unwrap();
        assert_eq!(read.metric, "val_loss");
        assert_eq!(read.keys(), ["optimizer.lr", "run.seed"]);
        assert_eq!(read.trials.len(), 2);
        let ranked: Vec<u64> = read.ranked().iter().map(|trial| trial.trial).collect();
        assert_eq!(ranked, [2, 1]);
        let (_dir, read) = sweep(&LINES.replace("minimize", "maximize"));
        assert_eq!(read.unwrap().ranked()[0].trial, 1);
    }

    #[test]
    fn the_best_runs_are_those_that_exist() {
        let (dir, read) = sweep(LINES);
        let (runs, read) = (RunsDir::new(dir.path()), read.unwrap());
        assert_eq!(read.best_runs(&runs, 8), []);
        let run = runs.run("lr", "aa");
        run.create().unwrap();
        fs::write(run.manifest(), "{}").unwrap();
        assert_eq!(read.trial_of(&run).map(|trial| trial.trial), Some(1));
        assert_eq!(read.trial_of(&runs.run("other", "aa")), None);
        assert_eq!(read.best_runs(&runs, 8), [run]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_fix() {
        let runs = RunsDir::new("/nowhere");
        let missing = Sweep::read(&runs, "lr").unwrap_err().to_string();
        assert!(
            missing.starts_with("there is no sweep lr (/nowhere/lr/sweep/results.jsonl is missing); "),
            "{missing}"
        );
        let damaged = sweep("{\"trial\":1}\n{}\n").1.unwrap_err().to_string();
        assert!(damaged.contains("results.jsonl:1 is damaged (missing field `state`"), "{damaged}");
        assert!(sweep("").1.unwrap_err().to_string().ends_with("let the sweep run"));
    }
}
