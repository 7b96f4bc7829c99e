//! Values that an experiment leaves out because they follow from others.

use std::thread::available_parallelism;

use oss_config::{Experiment, Explained, Resolved, ScheduleKind, SetBy, Strategy};
use oss_data::Tokenizer;
use oss_train::optimizer::schedule::decay_start;

use super::mesh::Mesh;

/// Every key of the experiment, which must be [complete](super::complete), with the value that is used.
pub fn explained(resolved: &Resolved) -> Vec<Explained> {
    let with_value = |explained: Explained| match &explained.value {
        Some(_) => explained,
        None => match derived(&explained.key, &resolved.experiment) {
            Some((value, how)) => {
                Explained { value: Some(value), set_by: SetBy::Derived { how }, ..explained }
            }
            None => explained,
        },
    };
    resolved.explain().into_iter().map(with_value).collect()
}

/// The value used for `key` if it is not set, as TOML, and how it follows; `None` if nothing is used in its place.
fn derived(key: &str, experiment: &Experiment) -> Option<(String, String)> {
    let Experiment { dataset, model, optimizer, schedule, train, sharding, .. } = experiment;
    let (value, how) = match key {
        "dataset.end_of_text" => {
            let end = Tokenizer::facts(&dataset.tokenizer, None).ok()?.end_of_text;
            return Some((text(&end.token), end.reason.to_string()));
        }
        "dataset.validation.separator" => (text(&dataset.separator), "dataset.separator"),
        "dataset.validation.text_field" => (text(&dataset.text_field), "dataset.text_field"),
        "model.layer_types" => {
            let types: Vec<_> = (0..model.num_hidden_layers).map(|layer| model.layer_type(layer)).collect();
            (serde_json::to_string(&types).ok()?, "alternating")
        }
        "optimizer.max_grad_norm" => (optimizer.clip_norm()?.to_string(), "optimizer.update"),
        "optimizer.momentum" => (optimizer.momentum()?.to_string(), "optimizer.kind"),
        "schedule.decay_steps" => match schedule.kind {
            ScheduleKind::Constant => return None,
            ScheduleKind::Cosine | ScheduleKind::Linear => (train.steps.to_string(), "train.steps"),
            ScheduleKind::Wsd => {
                let decay = train.steps - decay_start(schedule, train.steps);
                (decay.to_string(), "a fifth of train.steps")
            }
        },
        "sharding.shard_degree" if sharding.strategy == Strategy::Hsdp => {
            (Mesh::of(sharding).shards.to_string(), "the ranks of one machine")
        }
        "train.router_aux_loss_coef" => {
            let from_scratch = model.init_from.is_none();
            let how = if from_scratch { "training from scratch" } else { "model.init_from" };
            (train.router_aux_loss_coef(from_scratch).to_string(), how)
        }
        "train.threads" => match std::env::var("OMP_NUM_THREADS") {
            Ok(threads) => (threads, "OMP_NUM_THREADS"),
            Err(_) => (available_parallelism().ok()?.to_string(), "the cores of this machine"),
        },
        _ => return None,
    };
    Some((value, how.to_owned()))
}

/// A string as TOML.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
