//! What invalidates what: one row for every key of the experiment file.

/// The keys that a value can enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A prepared source of training text.
    Prepare,
    /// The validation text, where it is a source of its own.
    Validation,
    /// The sequence of weights, and so the run id.
    Trajectory,
    /// How far along its trajectory a run shall go.
    Target,
    /// The validation loss.
    Evaluate,
    /// The samples.
    Sample,
    /// The exported directory.
    Export,
}

/// How a value enters the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The resolved value itself, where it differs from the default.
    Value(&'static [Part]),
    /// The content that the value names, by digest; the name is only recorded.
    Content(&'static [Part]),
    /// Kept in the manifest; changes nothing that a stage makes.
    Recorded,
}

use Part::{Evaluate, Export, Prepare, Sample, Target, Trajectory, Validation};
use Role::{Content, Recorded, Value};

/// Every key of the experiment file. A test holds this table against the schema, so that a new key must be placed.
pub const TABLE: &[(&str, Role)] = &[
    ("run.name", Recorded),
    ("run.seed", Value(&[Trajectory])),
    // Bits may differ between the two ways on CUDA, as they may between two devices: neither is another experiment.
    ("run.deterministic", Recorded),
    ("run.notes", Recorded),
    ("run.labels", Recorded),
    ("dataset.builtin", Content(&[Prepare])),
    ("dataset.files", Content(&[Prepare])),
    ("dataset.hub", Content(&[Prepare])),
    ("dataset.text_field", Value(&[Prepare, Validation])),
    ("dataset.separator", Value(&[Prepare, Validation])),
    ("dataset.tokenizer", Content(&[Prepare, Validation, Export])),
    // Each source is prepared apart; their order and weights enter the trajectory beside the sources' contents.
    ("dataset.source", Content(&[Prepare, Trajectory])),
    ("dataset.validation.share", Value(&[Prepare])),
    ("dataset.validation.builtin", Content(&[Validation])),
    ("dataset.validation.files", Content(&[Validation])),
    ("dataset.validation.hub", Content(&[Validation])),
    // The fields below carry what a preset means.
    ("model.preset", Recorded),
    ("model.init_from", Content(&[Trajectory])),
    ("model.vocab_size", Value(&[Trajectory])),
    ("model.hidden_size", Value(&[Trajectory])),
    ("model.num_hidden_layers", Value(&[Trajectory])),
    ("model.num_attention_heads", Value(&[Trajectory])),
    ("model.num_key_value_heads", Value(&[Trajectory])),
    ("model.head_dim", Value(&[Trajectory])),
    ("model.num_local_experts", Value(&[Trajectory])),
    ("model.num_experts_per_tok", Value(&[Trajectory])),
    ("model.intermediate_size", Value(&[Trajectory])),
    ("model.sliding_window", Value(&[Trajectory])),
    ("model.layer_types", Value(&[Trajectory])),
    ("model.rope_theta", Value(&[Trajectory])),
    ("model.rope_scaling.factor", Value(&[Trajectory])),
    ("model.rope_scaling.beta_fast", Value(&[Trajectory])),
    ("model.rope_scaling.beta_slow", Value(&[Trajectory])),
    ("model.rope_scaling.original_max_position_embeddings", Value(&[Trajectory])),
    ("model.max_position_embeddings", Value(&[Trajectory])),
    ("model.rms_norm_eps", Value(&[Trajectory])),
    ("model.swiglu_limit", Value(&[Trajectory])),
    ("model.initializer_range", Value(&[Trajectory])),
    ("optimizer.kind", Value(&[Trajectory])),
    ("optimizer.lr", Value(&[Trajectory])),
    ("optimizer.momentum", Value(&[Trajectory])),
    ("optimizer.betas", Value(&[Trajectory])),
    ("optimizer.eps", Value(&[Trajectory])),
    ("optimizer.weight_decay", Value(&[Trajectory])),
    ("optimizer.max_grad_norm", Value(&[Trajectory])),
    ("optimizer.state", Value(&[Trajectory])),
    ("optimizer.update", Value(&[Trajectory])),
    ("schedule.kind", Value(&[Trajectory])),
    ("schedule.warmup_steps", Value(&[Trajectory])),
    ("schedule.decay_steps", Value(&[Trajectory])),
    ("schedule.min_lr_ratio", Value(&[Trajectory])),
    ("train.steps", Value(&[Target])),
    ("train.global_batch_size", Value(&[Trajectory])),
    ("train.micro_batch_size", Recorded),
    ("train.sequence_length", Value(&[Trajectory, Evaluate])),
    ("train.precision", Value(&[Trajectory, Evaluate])),
    ("train.weights", Value(&[Trajectory])),
    ("train.recompute", Recorded),
    ("train.document_mask", Value(&[Trajectory, Evaluate])),
    ("train.balance_loss", Value(&[Trajectory])),
    // A run that stopped at a NaN may go on by skipping it; without a NaN both mean the same.
    ("train.non_finite", Recorded),
    ("train.max_minutes", Recorded),
    ("train.device", Recorded),
    ("train.threads", Recorded),
    ("sharding.strategy", Recorded),
    ("sharding.ranks", Recorded),
    ("sharding.ranks_per_replica", Recorded),
    ("sharding.backend", Recorded),
    ("sharding.offload_optimizer", Recorded),
    ("sharding.timeout_seconds", Recorded),
    ("sharding.max_restarts", Recorded),
    ("checkpoint.every_steps", Recorded),
    ("checkpoint.keep_last", Recorded),
    ("checkpoint.keep_every", Recorded),
    ("checkpoint.keep_best", Recorded),
    ("checkpoint.background", Recorded),
    ("evaluate.every_steps", Recorded),
    ("evaluate.max_tokens", Value(&[Evaluate])),
    ("sample.every_steps", Recorded),
    ("sample.prompts", Value(&[Sample])),
    ("sample.max_new_tokens", Value(&[Sample])),
    ("sample.temperature", Value(&[Sample])),
    ("sample.top_k", Value(&[Sample])),
    ("sample.top_p", Value(&[Sample])),
    ("sample.seed", Value(&[Sample])),
    ("sample.stop", Value(&[Sample])),
    ("sample.num_samples", Value(&[Sample])),
    ("export.checkpoint", Content(&[Export])),
    ("export.format", Value(&[Export])),
    ("export.dtype", Value(&[Export])),
    ("export.max_shard_size", Value(&[Export])),
    ("log.every_steps", Recorded),
];

/// The row of a key; a key below a row (`dataset.hub.repo`) has that row's role.
pub fn role(key: &str) -> Option<Role> {
    TABLE
        .iter()
        .find(|(row, _)| key.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        .map(|(_, role)| *role)
}

/// Whether changing this key makes another trajectory.
pub fn in_trajectory(key: &str) -> bool {
    match role(key) {
        Some(Value(parts) | Content(parts)) => parts.iter().any(|part| matches!(part, Prepare | Trajectory)),
        Some(Recorded) => false,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::*;
    use oss_config::Experiment;

    /// Keys of the schema, down to the sections' fields and the fields of nested tables that have defaults.
    fn schema_keys() -> BTreeSet<String> {
        let schema = serde_json::to_value(schemars::schema_for!(Experiment)).unwrap();
        let mut keys = BTreeSet::new();
        walk(&schema, &schema, "", &mut keys);
        keys
    }

    fn walk(root: &Json, node: &Json, path: &str, keys: &mut BTreeSet<String>) {
        let node = match node.get("$ref").and_then(Json::as_str) {
            Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
            None => node,
        };
        let nested = TABLE.iter().any(|(row, _)| path.is_empty() || row.starts_with(&format!("{path}.")));
        match node.get("properties").and_then(Json::as_object) {
            Some(properties) if nested => {
                for (name, child) in properties {
                    let child_path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(root, child, &child_path, keys);
                }
            }
            _ => drop(keys.insert(path.to_owned())),
        }
    }

    #[test]
    fn every_key_of_the_schema_has_one_row() {
        let rows: BTreeSet<String> = TABLE.iter().map(|(row, _)| (*row).to_owned()).collect();
        assert_eq!(rows.len(), TABLE.len(), "a row is there twice");
        assert_eq!(rows, schema_keys());
    }

    #[test]
    fn keys_of_the_trajectory_are_told_from_the_others() {
        for key in ["run.seed", "dataset.separator", "dataset.files", "optimizer.lr", "dataset.hub.repo"] {
            assert!(in_trajectory(key), "{key}");
        }
        for key in ["train.steps", "dataset.validation.files", "export.dtype", "train.device", "run.name"] {
            assert!(!in_trajectory(key), "{key}");
        }
        assert!(in_trajectory("train.precision") && in_trajectory("dataset.validation.share"));
    }
}
