//! Compares two runs, number by number.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan::Stage;
use crate::plan::graph::FILES;
use oss_runs::monitor::{MetricsLog, TIME};
use oss_runs::run_dir::{Manifest, RunDir};
use oss_train::checkpoint::{self, Checkpoint};

/// The comparison of one item that both runs have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The item, such as `metrics`.
    pub what: &'static str,
    /// Whether it is identical, bit for bit.
    pub identical: bool,
    /// How much was compared, or the first difference.
    pub detail: String,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<10} {}, {}",
            self.what,
            if self.identical { "identical" } else { "DIFFERENT" },
            self.detail
        )
    }
}

/// Measurements of the machine, which are not reproducible.
const OF_THE_MACHINE: [&str; 4] = [TIME, "tokens_per_second", "tflops", "peak_memory_bytes"];

/// Compares the first `steps` steps of both runs: metrics and weights and, if these are all steps, the outputs of later
/// stages.
pub fn compare(original: &RunDir, again: &RunDir, steps: u64) -> Result<Vec<Compared>> {
    let mut compared = vec![metrics(original, again, steps)?];
    compared.extend(weights(original, again, steps)?);
    let (then, now) = (Manifest::load(original)?, Manifest::load(again)?);
    for (stage, what) in
        [(Stage::Evaluate, "evaluation"), (Stage::Sample, "samples"), (Stage::Export, "export")]
    {
        compared.extend(outputs(stage, what, &then, &now));
    }
    Ok(compared)
}

/// Every number logged by training and evaluation.
fn metrics(original: &RunDir, again: &RunDir, steps: u64) -> Result<Compared> {
    let read = |run: &RunDir| -> Result<Vec<(u64, Map<String, Value>)>> {
        let lines = MetricsLog::read(&run.metrics())?.into_iter().filter(|line| line.step <= steps);
        Ok(lines
            .map(|line| {
                let mut fields = line.fields;
                fields.retain(|name, _| !OF_THE_MACHINE.contains(&name.as_str()));
                (line.step, fields)
            })
            .collect())
    };
    let (then, now) = (read(original)?, read(again)?);
    let what = "metrics";
    for ((step, fields), (other_step, other)) in then.iter().zip(&now) {
        if step != other_step {
            let detail =
                format!("the original has a line for step {step}, the reproduction for step {other_step}");
            return Ok(Compared { what, identical: false, detail });
        }
        let differs = |(name, value): &(&String, &Value)| other.get(name.as_str()) != Some(value);
        if let Some((name, value)) = fields.iter().find(differs) {
            let now = other.get(name).map_or("missing".to_owned(), Value::to_string);
            let detail = format!("first difference at step {step}: {name} was {value}, now {now}");
            return Ok(Compared { what, identical: false, detail });
        }
    }
    if then.len() != now.len() {
        let detail = format!("{} lines originally, {} now", then.len(), now.len());
        return Ok(Compared { what, identical: false, detail });
    }
    let numbers: usize = then.iter().map(|(_, fields)| fields.len()).sum();
    Ok(Compared { what, identical: true, detail: format!("{numbers} numbers in {} lines", then.len()) })
}

/// The weights of the newest common checkpoint.
fn weights(original: &RunDir, again: &RunDir, steps: u64) -> Result<Option<Compared>> {
    let kept = checkpoint::list(&original.checkpoints());
    let of = checkpoint::list(&again.checkpoints());
    let common = kept.iter().rev().find_map(|(step, path)| {
        let (_, other) = of.iter().find(|(other, _)| other == step && *step <= steps)?;
        Some((*step, path, other))
    });
    let Some((step, then, now)) = common else { return Ok(None) };
    let digest = |path| -> Result<String> { Ok(Checkpoint::open(path)?.weights_digest().to_owned()) };
    let (then, now) = (digest(then)?, digest(now)?);
    let short = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
    let identical = then == now;
    let detail = match identical {
        true => format!("{} after step {step}", short(&then)),
        false => format!("{} originally, {} now, after step {step}", short(&then), short(&now)),
    };
    Ok(Some(Compared { what: "weights", identical, detail }))
}

/// The files written by a stage; `None` if one of the runs has not got that far.
fn outputs(stage: Stage, what: &'static str, then: &Manifest, now: &Manifest) -> Option<Compared> {
    let files = |manifest: &Manifest| -> Option<Vec<(String, String)>> {
        let files = manifest.stages.get(stage.name())?.outputs.get(FILES)?.as_array()?;
        let file =
            |file: &Value| Some((file["path"].as_str()?.to_owned(), file["blake3"].as_str()?.to_owned()));
        files.iter().map(file).collect()
    };
    let (then, now) = (files(then)?, files(now)?);
    let other = then.iter().find(|file| !now.contains(file));
    Some(match other {
        None if then.len() == now.len() => {
            Compared { what, identical: true, detail: format!("{} files", then.len()) }
        }
        None => Compared {
            what,
            identical: false,
            detail: format!("{} files originally, {} now", then.len(), now.len()),
        },
        Some((path, _)) => {
            Compared { what, identical: false, detail: format!("the content of {path} differs") }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(lines: &str) -> (tempfile::TempDir, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        fs::write(run.metrics(), lines).unwrap();
        (dir, run)
    }

    #[test]
    fn the_first_difference_is_reported() {
        let (_a, then) = run(
            "{\"step\":1,\"loss\":2.5,\"tokens_per_second\":9}\n{\"step\":2,\"loss\":2.25}\n{\"step\":3,\"loss\":1}\n",
        );
        let (_b, now) = run(
            "{\"step\":1,\"loss\":2.5,\"tokens_per_second\":7}\n{\"step\":2,\"loss\":2.2500000000000004}\n",
        );
        let compared = metrics(&then, &now, 1).unwrap();
        assert_eq!((compared.identical, compared.detail.as_str()), (true, "1 numbers in 1 lines"));
        let compared = metrics(&then, &now, 2).unwrap();
        assert_eq!(compared.detail, "first difference at step 2: loss was 2.25, now 2.2500000000000004");
        let (_c, short) = run("{\"step\":1,\"loss\":2.5}\n");
        assert_eq!(metrics(&then, &short, 3).unwrap().detail, "3 lines originally, 1 now");
    }
}
