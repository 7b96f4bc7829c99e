//! Compares two runs: configuration, data, code, environment, metrics, ordered so that each can explain the next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::plan::Stage;
use crate::plan::inputs::Inputs;
use crate::plan::keys::{all_values, by_key};
use oss_runs::monitor::{MetricsLine, MetricsLog};
use oss_runs::run_dir::{Manifest, RunDir};

/// The differences between two runs.
#[derive(Debug, Serialize)]
pub struct Differences {
    /// The first run.
    pub left: PathBuf,
    /// The second.
    pub right: PathBuf,
    /// Whether there are no differences, ignoring throughput.
    pub same: bool,
    /// Values of the experiment.
    pub configuration: Vec<Difference>,
    /// Input data, by digest.
    pub data: Vec<Difference>,
    /// The program and its git state.
    pub code: Vec<Difference>,
    /// The machine and its settings, at the last start.
    pub environment: Vec<Difference>,
    /// Results.
    pub metrics: Vec<Difference>,
    /// The first common step with a different loss.
    pub first_different_loss: Option<StepLoss>,
    /// Number of steps that both logged.
    pub common_steps: usize,
    /// Median tokens per second of each run.
    pub tokens_per_second: [Option<f64>; 2],
}

/// A difference; null if a run does not have the value.
#[derive(Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub what: String,
    /// Value in the first run.
    pub left: Value,
    /// Value in the second run.
    pub right: Value,
}

/// The loss of a step in both runs.
#[derive(Debug, PartialEq, Serialize)]
pub struct StepLoss {
    /// The step.
    pub step: u64,
    /// Loss of the first run; null if not finite.
    pub left: Option<f64>,
    /// Loss of the second run.
    pub right: Option<f64>,
}

/// The values of one side, by name.
type Facts = BTreeMap<String, Value>;

impl Differences {
    /// Compares two runs, which may be in progress.
    ///
    /// # Errors
    /// A manifest or metrics file cannot be read.
    pub fn between(left: &RunDir, right: &RunDir) -> Result<Self> {
        let (a, b) = (Manifest::load(left)?, Manifest::load(right)?);
        let (a_lines, b_lines) = (MetricsLog::read(&left.metrics())?, MetricsLog::read(&right.metrics())?);
        let ((mut a_code, a_environment), (mut b_code, b_environment)) = (surroundings(&a), surroundings(&b));
        for (stage, a) in &a.stages {
            // A stage that only one of them ran says nothing about the program.
            if let Some(b) = b.stages.get(stage) {
                a_code.insert(format!("version of {stage}"), json!(a.version));
                b_code.insert(format!("version of {stage}"), json!(b.version));
            }
        }
        let losses = common_losses(&a_lines, &b_lines);
        let mut found = Self {
            left: left.root().to_owned(),
            right: right.root().to_owned(),
            same: false,
            configuration: compare(&all_values(a.experiment.clone()), &all_values(b.experiment.clone())),
            data: compare(&data(&a), &data(&b)),
            code: compare(&a_code, &b_code),
            environment: compare(&a_environment, &b_environment),
            metrics: compare(&results(&a, &a_lines), &results(&b, &b_lines)),
            common_steps: losses.len(),
            first_different_loss: losses.into_iter().find(|loss| loss.left != loss.right),
            tokens_per_second: [speed(&a_lines), speed(&b_lines)],
        };
        let parts = [&found.configuration, &found.data, &found.code, &found.environment, &found.metrics];
        found.same = parts.iter().all(|part| part.is_empty()) && found.first_different_loss.is_none();
        Ok(found)
    }
}

fn compare(left: &Facts, right: &Facts) -> Vec<Difference> {
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let of = |facts: &Facts, name: &str| facts.get(name).cloned().unwrap_or_default();
    names
        .into_iter()
        .map(|name| Difference { what: name.clone(), left: of(left, name), right: of(right, name) })
        .filter(|difference| difference.left != difference.right)
        .collect()
}

/// Digests of the run's inputs.
fn data(manifest: &Manifest) -> Facts {
    let mut facts = Facts::new();
    let mut add = |what: String, digest: Value| drop(facts.insert(what, digest));
    match serde_json::from_value::<Inputs>(manifest.inputs.clone()) {
        Ok(inputs) => {
            for source in inputs.sources.iter().chain(&inputs.validation) {
                add(format!("text of {}", source.name), json!(source.content().ok()));
            }
            add("tokenizer".to_owned(), json!(inputs.tokenizer));
            if let Some(initial) = inputs.initial {
                add("initial weights".to_owned(), json!(initial.digest));
            }
        }
        // Written by another version: compare it as is.
        Err(_) => add("inputs".to_owned(), manifest.inputs.clone()),
    }
    if let Some(tokens) = manifest.keys.get("tokens") {
        add("tokens".to_owned(), json!(tokens));
    }
    facts
}

/// From the last start: the program and its git state, and everything else except times.
fn surroundings(manifest: &Manifest) -> (Facts, Facts) {
    let last = manifest.segments.last().cloned().unwrap_or_default();
    let mut all = by_key(serde_json::to_value(&last).unwrap_or_default());
    all.retain(|name, _| !["started", "finished", "exit", "error"].contains(&name.as_str()));
    let is_code = |name: &str| name == "program" || name.starts_with("git.");
    all.into_iter().partition(|(name, _)| is_code(name))
}

/// The results of a run.
fn results(manifest: &Manifest, lines: &[MetricsLine]) -> Facts {
    let mut facts = Facts::new();
    facts.extend(lines.last().map(|line| ("last step".to_owned(), json!(line.step))));
    for name in ["loss", "val_loss"] {
        let last = lines.iter().rev().find_map(|line| line.fields.get(name));
        facts.extend(last.map(|value| (format!("last {name}"), value.clone())));
    }
    let train = manifest.stages.get(Stage::Train.name());
    let weights = train.and_then(|record| record.outputs.get("weights"));
    facts.extend(weights.map(|digest| ("last weights".to_owned(), digest.clone())));
    facts
}

/// The losses of common steps, in order.
fn common_losses(left: &[MetricsLine], right: &[MetricsLine]) -> Vec<StepLoss> {
    let losses = |lines: &[MetricsLine]| -> BTreeMap<u64, Option<f64>> {
        lines.iter().filter_map(|line| Some((line.step, line.fields.get("loss")?.as_f64()))).collect()
    };
    let (left, right) = (losses(left), losses(right));
    let both = |(step, left): (u64, Option<f64>)| Some(StepLoss { step, left, right: *right.get(&step)? });
    left.into_iter().filter_map(both).collect()
}

fn speed(lines: &[MetricsLine]) -> Option<f64> {
    let mut speeds: Vec<f64> =
        lines.iter().filter_map(|line| line.fields.get("tokens_per_second")?.as_f64()).collect();
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_runs::run_dir::{Environment, GitState, Segment};

    fn run(dir: &std::path::Path, id: &str, lr: f64, losses: &[f64]) -> RunDir {
        let run = RunDir::new(dir.join("tiny").join(id));
        run.create().unwrap();
        let mut manifest = Manifest::new(id, "tiny", json!({"optimizer": {"lr": lr}}));
        manifest.inputs = json!({"sources": [], "validation": null, "tokenizer": "t", "initial": null});
        manifest.segments.push(Segment {
            environment: Environment { program: "1.0".into(), ..Environment::default() },
            threads: 2,
            ..Segment::default()
        });
        manifest.save(&run).unwrap();
        let mut log = MetricsLog::open(&run.metrics(), None).unwrap();
        for (index, loss) in losses.iter().enumerate() {
            let fields = json!({"loss": loss, "tokens_per_second": 100.0 * lr});
            log.append(index as u64 + 1, fields.as_object().unwrap()).unwrap();
        }
        run
    }

    #[test]
    fn equal_runs_do_not_differ_whatever_their_speed() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (run(dir.path(), "aa", 0.1, &[3.0, 2.0]), run(dir.path(), "bb", 0.1, &[3.0, 2.0]));
        let found = Differences::between(&a, &b).unwrap();
        assert!(found.same, "{found:?}");
        assert_eq!(found.common_steps, 2);
    }

    #[test]
    fn differences_are_grouped_by_kind() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (run(dir.path(), "aa", 0.1, &[3.0, 2.0, 1.0]), run(dir.path(), "bb", 0.2, &[3.0, 2.5]));
        let mut manifest = Manifest::load(&b).unwrap();
        manifest.inputs["tokenizer"] = json!("u");
        let segment = manifest.segments.last_mut().unwrap();
        segment.environment.git =
            Some(GitState { commit: "c0ffee".into(), dirty: true, ..GitState::default() });
        segment.environment.variables.insert("OMP_NUM_THREADS".into(), "1".into());
        segment.threads = 1;
        manifest.save(&b).unwrap();
        let found = Differences::between(&a, &b).unwrap();
        assert!(!found.same);
        let shown = |part: &[Difference]| -> Vec<String> {
            part.iter().map(|it| format!("{} {} {}", it.what, it.left, it.right)).collect()
        };
        assert_eq!(shown(&found.configuration), ["optimizer.lr 0.1 0.2"]);
        assert_eq!(shown(&found.data), ["tokenizer \"t\" \"u\""]);
        assert_eq!(shown(&found.code), ["git.commit null \"c0ffee\"", "git.dirty null true"]);
        assert_eq!(shown(&found.environment), ["threads 2 1", "variables.OMP_NUM_THREADS null \"1\""]);
        assert_eq!(shown(&found.metrics), ["last loss 1.0 2.5", "last step 3 2"]);
        let parted = StepLoss { step: 2, left: Some(2.0), right: Some(2.5) };
        assert_eq!(found.first_different_loss, Some(parted));
        assert_eq!(found.tokens_per_second, [Some(10.0), Some(20.0)]);
    }
}
