//! What each key of the experiment file invalidates, one row per key.

/// What a value can affect; each part has its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A prepared source of training text.
    Prepare,
    /// The validation text, if it is a separate source.
    Validation,
    /// The trajectory of the weights, and so the run id.
    TrainingFingerprint,
    /// The target step on the trajectory.
    Target,
    /// The validation loss.
    Evaluate,
    /// The samples.
    Sample,
    /// The exported directory.
    Export,
}

/// How a value enters keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// By its resolved value, if not the default.
    Value(&'static [Part]),
    /// By the digest of the content it refers to; the name itself is only recorded.
    Content(&'static [Part]),
    /// Not at all: it is recorded in the manifest and does not affect outputs.
    Recorded,
}

use Part::{Evaluate, Export, Prepare, Sample, Target, TrainingFingerprint, Validation};
use Role::{Content, Recorded, Value};

/// Every key of the experiment file. A test compares this table with the schema, so that no new key is forgotten.
pub const TABLE: &[(&str, Role)] = &[
    ("run.name", Recorded),
    ("run.seed", Value(&[TrainingFingerprint])),
    // On CUDA, it may change some bits of the results, as another device would; neither makes another experiment.
    ("run.deterministic", Recorded),
    ("run.notes", Recorded),
    ("run.labels", Recorded),
    ("dataset.builtin", Content(&[Prepare])),
    ("dataset.files", Content(&[Prepare])),
    ("dataset.hub", Content(&[Prepare])),
    ("dataset.text_field", Value(&[Prepare, Validation])),
    ("dataset.separator", Value(&[Prepare, Validation])),
    ("dataset.trim", Value(&[Prepare, Validation])),
    ("dataset.on_bad_row", Value(&[Prepare, Validation])),
    // It decides whether there is a result, not which.
    ("dataset.max_bad_fraction", Recorded),
    ("dataset.tokenizer", Content(&[Prepare, Validation, Export])),
    // Part of the tokenizer's digest.
    ("dataset.end_of_text", Content(&[Prepare, Validation, Export])),
    // Sources are prepared separately; their order and weights enter the trajectory along with their contents.
    ("dataset.source", Content(&[Prepare, TrainingFingerprint])),
    ("dataset.validation.fraction", Value(&[Prepare])),
    ("dataset.validation.builtin", Content(&[Validation])),
    ("dataset.validation.files", Content(&[Validation])),
    ("dataset.validation.hub", Content(&[Validation])),
    ("dataset.validation.text_field", Value(&[Validation])),
    ("dataset.validation.separator", Value(&[Validation])),
    // A preset is represented by the fields below.
    ("model.preset", Recorded),
    ("model.init_from", Content(&[TrainingFingerprint])),
    ("model.vocab_size", Value(&[TrainingFingerprint])),
    ("model.hidden_size", Value(&[TrainingFingerprint])),
    ("model.num_hidden_layers", Value(&[TrainingFingerprint])),
    ("model.num_attention_heads", Value(&[TrainingFingerprint])),
    ("model.num_key_value_heads", Value(&[TrainingFingerprint])),
    ("model.head_dim", Value(&[TrainingFingerprint])),
    ("model.num_local_experts", Value(&[TrainingFingerprint])),
    ("model.num_experts_per_tok", Value(&[TrainingFingerprint])),
    ("model.intermediate_size", Value(&[TrainingFingerprint])),
    ("model.sliding_window", Value(&[TrainingFingerprint])),
    ("model.layer_types", Value(&[TrainingFingerprint])),
    ("model.rope_theta", Value(&[TrainingFingerprint])),
    ("model.rope_scaling.factor", Value(&[TrainingFingerprint])),
    ("model.rope_scaling.beta_fast", Value(&[TrainingFingerprint])),
    ("model.rope_scaling.beta_slow", Value(&[TrainingFingerprint])),
    ("model.rope_scaling.original_max_position_embeddings", Value(&[TrainingFingerprint])),
    ("model.max_position_embeddings", Value(&[TrainingFingerprint])),
    ("model.rms_norm_eps", Value(&[TrainingFingerprint])),
    ("model.swiglu_limit", Value(&[TrainingFingerprint])),
    ("model.initializer_range", Value(&[TrainingFingerprint])),
    ("optimizer.kind", Value(&[TrainingFingerprint])),
    ("optimizer.lr", Value(&[TrainingFingerprint])),
    ("optimizer.momentum", Value(&[TrainingFingerprint])),
    ("optimizer.betas", Value(&[TrainingFingerprint])),
    ("optimizer.eps", Value(&[TrainingFingerprint])),
    ("optimizer.weight_decay", Value(&[TrainingFingerprint])),
    ("optimizer.max_grad_norm", Value(&[TrainingFingerprint])),
    ("optimizer.state_dtype", Value(&[TrainingFingerprint])),
    ("optimizer.update", Value(&[TrainingFingerprint])),
    ("schedule.kind", Value(&[TrainingFingerprint])),
    ("schedule.warmup_steps", Value(&[TrainingFingerprint])),
    ("schedule.decay_steps", Value(&[TrainingFingerprint])),
    ("schedule.min_lr_ratio", Value(&[TrainingFingerprint])),
    ("train.steps", Value(&[Target])),
    ("train.epochs", Value(&[Target])),
    ("train.global_batch_size", Value(&[TrainingFingerprint])),
    ("train.micro_batch_size", Recorded),
    ("train.sequence_length", Value(&[TrainingFingerprint, Evaluate])),
    ("train.precision", Value(&[TrainingFingerprint, Evaluate])),
    ("train.param_dtype", Value(&[TrainingFingerprint])),
    ("train.activation_checkpointing", Recorded),
    ("train.document_mask", Value(&[TrainingFingerprint, Evaluate])),
    ("train.router_aux_loss_coef", Value(&[TrainingFingerprint])),
    // A run that stopped at a NaN may be resumed by skipping it; without a NaN, both are the same.
    ("train.non_finite", Recorded),
    ("train.max_skipped_steps", Recorded),
    ("train.max_minutes", Recorded),
    ("train.device", Recorded),
    ("train.threads", Recorded),
    ("sharding.strategy", Recorded),
    ("sharding.ranks", Recorded),
    ("sharding.shard_degree", Recorded),
    ("sharding.backend", Recorded),
    ("sharding.optimizer_cpu_offload", Recorded),
    ("sharding.timeout_seconds", Recorded),
    ("sharding.max_restarts", Recorded),
    ("checkpoint.every_steps", Recorded),
    ("checkpoint.keep_last", Recorded),
    ("checkpoint.keep_every", Recorded),
    ("checkpoint.keep_best", Recorded),
    ("checkpoint.background", Recorded),
    ("evaluate.every_steps", Recorded),
    ("evaluate.max_tokens", Value(&[Evaluate])),
    ("evaluate.patience", Value(&[Target])),
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
    ("log.every_seconds", Recorded),
    ("log.hparams", Recorded),
];

/// The role of a key; a key below a row (`dataset.hub.repo`) has that row's role.
pub fn role(key: &str) -> Option<Role> {
    TABLE
        .iter()
        .find(|(row, _)| key.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        .map(|(_, role)| *role)
}

/// Whether changing this key changes the trajectory.
pub fn in_trajectory(key: &str) -> bool {
    match role(key) {
        Some(Value(parts) | Content(parts)) => {
            parts.iter().any(|part| matches!(part, Prepare | TrainingFingerprint))
        }
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
        assert_eq!(rows.len(), TABLE.len(), "duplicate row");
        assert_eq!(rows, schema_keys());
    }

    #[test]
    fn trajectory_keys_are_recognized() {
        for key in ["run.seed", "dataset.separator", "dataset.files", "optimizer.lr", "dataset.hub.repo"] {
            assert!(in_trajectory(key), "{key}");
        }
        for key in ["train.steps", "dataset.validation.files", "export.dtype", "train.device", "run.name"] {
            assert!(!in_trajectory(key), "{key}");
        }
        assert!(in_trajectory("train.precision") && in_trajectory("dataset.validation.fraction"));
    }
}
