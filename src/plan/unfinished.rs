//! Notices that a changed experiment leaves an unfinished run behind.

use std::collections::BTreeSet;

use oss_config::Experiment;
use oss_runs::run_dir::{Manifest, RunStatus, RunsDir};
use serde_json::Value;

use super::graph::Graph;
use super::identity::steps_taken;
use super::keys::all_values;
use super::table::in_trajectory;

/// At most this many changed keys are named.
const SHOWN_KEYS: usize = 3;

/// What to tell a user whose experiment is a new run although the newest run of that name is unfinished: where that one
/// stopped, and with which values. `None` if there is nothing to tell.
pub fn left_behind(graph: &Graph) -> Option<String> {
    if graph.identity.manifest.is_some() {
        return None;
    }
    let (id, manifest, step) = newest(&graph.runs, &graph.identity.run.name())?;
    let changed = changes(&manifest, &graph.experiment);
    if changed.is_empty() {
        return None;
    }
    let more = if changed.len() > SHOWN_KEYS { ", ..." } else { "" };
    let shown = changed[..changed.len().min(SHOWN_KEYS)].join(", ");
    Some(format!(
        "{id} stopped at step {step} with {shown}{more}; this starts a new run\nhint: to continue that one, run \
         `oss-run resume {id}`"
    ))
}

/// The newest run in that folder, if it can be resumed.
fn newest(runs: &RunsDir, name: &str) -> Option<(String, Manifest, u64)> {
    let folder = runs.root().join(name);
    let listed = runs.list().ok()?.into_iter().filter(|run| run.root().parent() == Some(&folder));
    let known = listed.filter_map(|run| Some((Manifest::load(&run).ok()?, run)));
    let (manifest, run) = known.max_by_key(|(manifest, _)| manifest.last_started())?;
    let unfinished = matches!(
        RunStatus::of(&run, Some(&manifest)),
        RunStatus::Stopped | RunStatus::Interrupted | RunStatus::Failed
    );
    let step = steps_taken(&run);
    (unfinished && step > 0).then(|| (run.id(), manifest, step))
}

/// The keys of the trajectory that have other values in `manifest`, with these values: `optimizer.lr = 0.0003`.
fn changes(manifest: &Manifest, experiment: &Experiment) -> Vec<String> {
    let then = all_values(manifest.experiment.clone());
    let now = all_values(serde_json::to_value(experiment).unwrap_or_default());
    let keys: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    keys.into_iter()
        .filter(|key| in_trajectory(key) && then.get(*key) != now.get(*key))
        .map(|key| match then.get(key) {
            None | Some(Value::Null) => format!("{key} unset"),
            Some(value) => format!("{key} = {value}"),
        })
        .collect()
}
