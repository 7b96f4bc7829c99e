//! Resolves the RUN arguments of a command that takes several: patterns such as `'quickstart/*'`, too.

use anyhow::Result;

use super::filter::{is_named, pattern};
use super::overview::listed;
use oss_config::error::UserError;
use oss_runs::run_dir::{Manifest, RunDir, RunsDir};

/// The runs that `asked` names, each once, in the order of the arguments; those of a pattern by their last start.
///
/// # Errors
/// Those of [`RunsDir::resolve`]; a pattern matches no run.
pub fn select(runs: &RunsDir, asked: &[String]) -> Result<Vec<RunDir>> {
    let mut selected: Vec<RunDir> = Vec::new();
    let place = |run: &RunDir| run.root().canonicalize().ok();
    for asked in asked {
        let found = match asked.contains(['*', '?', '[']) {
            true => matching(runs, asked)?,
            false => vec![runs.resolve(asked)?],
        };
        for run in found {
            if selected.iter().all(|other| place(other) != place(&run)) {
                selected.push(run);
            }
        }
    }
    Ok(selected)
}

fn matching(runs: &RunsDir, asked: &str) -> Result<Vec<RunDir>> {
    let pattern = pattern(asked)?;
    let mut found: Vec<RunDir> = listed(runs)?.into_iter().filter(|run| is_named(run, &pattern)).collect();
    if found.is_empty() {
        let message = format!("no run matches `{asked}` in {}", runs.root().display());
        let hint = "a pattern is compared with the name, the id and name/id of each run; see `oss-run ls`";
        return Err(UserError::wrong(message).hint(hint).into());
    }
    found.sort_by_cached_key(|run| Manifest::load(run).ok().map(|manifest| manifest.last_started()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::Value;

    use super::*;

    #[test]
    fn patterns_and_names_select_each_run_once() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        for (age, (name, id)) in [("tiny", "bbbb"), ("tiny", "aaaa"), ("big", "cccc")].into_iter().enumerate()
        {
            let run = runs.run(name, id);
            run.create().unwrap();
            let mut manifest = Manifest::new(id, name, Value::Null);
            manifest.created += TimeDelta::hours(age as i64);
            manifest.save(&run).unwrap();
        }
        let ids = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|&word| word.to_owned()).collect();
            Ok::<_, anyhow::Error>(select(&runs, &asked)?.iter().map(RunDir::id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["tiny/*"]).unwrap(), ["bbbb", "aaaa"]);
        assert_eq!(ids(&["last", "*"]).unwrap(), ["cccc", "bbbb", "aaaa"]);
        assert_eq!(ids(&["aaaa", "t*y/a?aa"]).unwrap(), ["aaaa"]);
        let error = ids(&["none*"]).unwrap_err();
        assert!(error.to_string().starts_with("no run matches `none*` in "), "{error}");
        assert!(ids(&["a["]).is_err());
    }
}
