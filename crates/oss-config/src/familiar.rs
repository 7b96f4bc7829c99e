//! Key names from other trainers, and from earlier versions of this program.
//!
//! None of them is accepted. They improve the suggestion for an unknown key where spelling alone would find nothing:
//! `learning_rate` is far from `lr`.

/// What an unknown name was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One of these keys, as full paths.
    Keys(&'static [&'static str]),
    /// Something that is expressed differently here.
    Advice(&'static str),
}

use Meaning::{Advice, Keys};

/// Names of sections.
const SECTIONS: &[(&[&str], Meaning)] = &[
    (&["training", "trainer", "training_args"], Keys(&["train"])),
    (&["data", "datasets"], Keys(&["dataset"])),
    (&["optim"], Keys(&["optimizer"])),
    (&["scheduler", "lr_scheduler"], Keys(&["schedule"])),
    (&["distributed", "parallel", "parallelism", "parallelize", "deepspeed"], Keys(&["sharding"])),
    (&["checkpoints", "checkpointing"], Keys(&["checkpoint"])),
    (&["eval", "evaluation"], Keys(&["evaluate"])),
    (&["generate", "generation", "sampling"], Keys(&["sample"])),
    (&["logging"], Keys(&["log"])),
    (&["experiment"], Keys(&["run"])),
];

/// Names and what they mean. A name with a dot applies only at that path, any other in every table.
const FAMILIAR: &[(&[&str], Meaning)] = &[
    // Names of earlier versions.
    (&["train.weights"], Keys(&["train.param_dtype"])),
    (&["train.recompute"], Keys(&["train.activation_checkpointing"])),
    (&["train.balance_loss"], Keys(&["train.router_aux_loss_coef"])),
    (&["optimizer.state"], Keys(&["optimizer.state_dtype"])),
    (&["dataset.validation.share"], Keys(&["dataset.validation.fraction"])),
    (&["sharding.ranks_per_replica"], Keys(&["sharding.shard_degree"])),
    (&["sharding.offload_optimizer"], Keys(&["sharding.optimizer_cpu_offload"])),
    (&["sweep.halving.reduction"], Keys(&["sweep.halving.reduction_factor"])),
    // Sweeps (Hydra, W&B, Optuna, Ray).
    (
        &["sweep.grid", "sweep.params", "sweep.space", "sweep.search_space", "sweep.param_space"],
        Keys(&["sweep.parameters"]),
    ),
    (
        &["sweep.n_trials", "sweep.max_trials", "sweep.num_samples", "sweep.count", "sweep.run_cap"],
        Keys(&["sweep.num_trials"]),
    ),
    (&["sweep.n_jobs", "sweep.max_concurrent_trials", "sweep.workers"], Keys(&["sweep.parallel"])),
    (&["sweep.goal", "sweep.mode"], Keys(&["sweep.direction"])),
    (&["sweep.early_terminate"], Keys(&["sweep.halving"])),
    (&["sweep.halving.min_iter"], Keys(&["sweep.halving.min_steps"])),
    (&["sweep.halving.eta"], Keys(&["sweep.halving.reduction_factor"])),
    // Any table with a kind.
    (&["optimizer.type", "optimizer.name", "optimizer_type", "optim_type"], Keys(&["optimizer.kind"])),
    (&["schedule.type", "schedule.name", "lr_scheduler_type", "lr_schedule"], Keys(&["schedule.kind"])),
    // Steps and batches.
    (
        &["batch_size", "train_batch_size", "per_device_train_batch_size"],
        Keys(&["train.global_batch_size", "train.micro_batch_size"]),
    ),
    (&["device_batch_size", "local_batch_size", "micro_batch", "mbs"], Keys(&["train.micro_batch_size"])),
    (&["global_batch", "gbs", "total_batch_size"], Keys(&["train.global_batch_size"])),
    (
        &["gradient_accumulation_steps", "grad_accum_steps", "accumulate_grad_batches", "grad_accumulation"],
        Advice(
            "accumulation follows from `train.global_batch_size`, `train.micro_batch_size` and `sharding.ranks`: set these",
        ),
    ),
    (&["epochs", "num_epochs", "num_train_epochs", "max_epochs"], Keys(&["train.epochs"])),
    (
        &["max_steps", "num_steps", "total_steps", "train_steps", "num_iterations", "max_iters"],
        Keys(&["train.steps"]),
    ),
    (
        &[
            "seq_len",
            "seq_length",
            "max_seq_len",
            "max_seq_length",
            "block_size",
            "context_length",
            "n_ctx",
            "max_length",
        ],
        Keys(&["train.sequence_length"]),
    ),
    (
        &["sample_packing", "packing"],
        Advice("sequences are always packed; `train.document_mask` keeps their documents apart"),
    ),
    // The optimizer and its schedule.
    (
        &["learning_rate", "max_lr", "peak_lr", "base_lr", "matrix_lr", "embedding_lr", "unembedding_lr"],
        Keys(&["optimizer.lr"]),
    ),
    (&["early_step_in_backward"], Keys(&["optimizer.update"])),
    (&["beta", "beta1", "beta2", "adam_beta1", "adam_beta2"], Keys(&["optimizer.betas"])),
    (&["epsilon", "adam_epsilon"], Keys(&["optimizer.eps"])),
    (&["decay", "wd", "l2"], Keys(&["optimizer.weight_decay"])),
    (
        &[
            "grad_clip",
            "gradient_clip",
            "gradient_clip_val",
            "clip_grad_norm",
            "clip_norm",
            "max_norm",
            "clip",
        ],
        Keys(&["optimizer.max_grad_norm"]),
    ),
    (&["warmup", "num_warmup_steps", "warmup_iters", "warmup_ratio"], Keys(&["schedule.warmup_steps"])),
    (
        &["min_lr", "final_lr", "end_lr", "lr_min", "cosine_min_lr_ratio", "min_lr_factor", "final_lr_frac"],
        Keys(&["schedule.min_lr_ratio"]),
    ),
    (
        &["lr_decay_iters", "num_decay_steps", "cooldown_steps", "decay_ratio", "warmdown_ratio"],
        Keys(&["schedule.decay_steps"]),
    ),
    // Precision, memory and the auxiliary loss.
    (
        &["bf16", "fp16", "mixed_precision", "mixed_precision_param", "amp", "autocast", "torch_dtype"],
        Keys(&["train.precision"]),
    ),
    (
        &["gradient_checkpointing", "activation_recompute", "checkpoint_activations"],
        Keys(&["train.activation_checkpointing"]),
    ),
    (
        &["aux_loss_coef", "moe_aux_loss_coeff", "load_balancing_loss", "aux_loss", "router_aux_loss"],
        Keys(&["train.router_aux_loss_coef"]),
    ),
    // The model.
    (&["flavor"], Keys(&["model.preset"])),
    (&["window_pattern"], Keys(&["model.layer_types"])),
    (&["n_layers", "n_layer", "num_layers", "layers", "depth"], Keys(&["model.num_hidden_layers"])),
    (
        &["d_model", "n_embd", "n_embed", "dim", "embed_dim", "hidden_dim", "width"],
        Keys(&["model.hidden_size"]),
    ),
    (&["n_heads", "n_head", "num_heads"], Keys(&["model.num_attention_heads"])),
    (&["n_kv_heads", "n_kv_head", "num_kv_heads"], Keys(&["model.num_key_value_heads"])),
    (&["num_experts", "n_experts", "n_routed_experts"], Keys(&["model.num_local_experts"])),
    (
        &["experts_per_token", "num_active_experts", "n_activated_experts", "moe_top_k"],
        Keys(&["model.num_experts_per_tok"]),
    ),
    (&["ffn_dim", "ffn_hidden_size", "moe_intermediate_size", "d_ff"], Keys(&["model.intermediate_size"])),
    (&["n_vocab", "vocabulary_size"], Keys(&["model.vocab_size"])),
    (&["norm_eps", "layer_norm_eps"], Keys(&["model.rms_norm_eps"])),
    (&["init_std"], Keys(&["model.initializer_range"])),
    (
        &[
            "model_name_or_path",
            "pretrained",
            "pretrained_model",
            "model_name",
            "model_path",
            "base_model",
            "initial_load_path",
            "checkpoint_path",
            "init_checkpoint",
        ],
        Keys(&["model.init_from"]),
    ),
    (&["resume_from_checkpoint", "resume_from"], Advice("run the same file again, or `oss-run resume RUN`")),
    // Text.
    (
        &[
            "path",
            "paths",
            "data_path",
            "dataset_path",
            "data_files",
            "train_file",
            "train_files",
            "data_dir",
            "pretraining_dataset",
        ],
        Keys(&["dataset.files"]),
    ),
    (&["dataset_name", "hf_dataset"], Keys(&["dataset.hub"])),
    (&["text_column", "dataset_text_field", "content_field"], Keys(&["dataset.text_field"])),
    (&["on_bad_lines", "ignore_errors", "skip_bad_rows"], Keys(&["dataset.on_bad_row"])),
    (&["strip", "strip_whitespace", "trim_whitespace"], Keys(&["dataset.trim"])),
    (
        &["tokenizer_name", "tokenizer_path", "tokenizer_file", "tokenizer_config", "hf_assets_path"],
        Keys(&["dataset.tokenizer"]),
    ),
    (&["eos_token", "eos", "eod_token", "end_token"], Keys(&["dataset.end_of_text"])),
    (
        &["val_split", "validation_split", "val_set_size", "test_size", "val_fraction"],
        Keys(&["dataset.validation.fraction"]),
    ),
    (&["validation_file", "val_file", "test_datasets"], Keys(&["dataset.validation.files"])),
    // Devices and ranks.
    (
        &["gpu", "gpus", "num_gpus", "n_gpus", "nproc_per_node", "world_size", "num_processes"],
        Keys(&["sharding.ranks"]),
    ),
    (&["accelerator", "device_type"], Keys(&["train.device"])),
    (
        &["cpu_offload", "offload", "offload_params", "enable_cpu_offload"],
        Keys(&["sharding.optimizer_cpu_offload"]),
    ),
    (
        &["zero_stage", "sharding_strategy", "fsdp", "fsdp_version", "fsdp_config"],
        Keys(&["sharding.strategy"]),
    ),
    (
        &[
            "dp_shard_size",
            "dp_replicate_size",
            "data_parallel_shard_degree",
            "data_parallel_replicate_degree",
        ],
        Keys(&["sharding.shard_degree"]),
    ),
    (&["ddp_timeout"], Keys(&["sharding.timeout_seconds"])),
    (&["num_threads", "num_workers"], Keys(&["train.threads"])),
    // Cadence.
    (
        &["save_steps", "save_every", "save_interval", "checkpoint_interval"],
        Keys(&["checkpoint.every_steps"]),
    ),
    (&["save_total_limit", "keep_latest_k"], Keys(&["checkpoint.keep_last"])),
    (&["load_best_model_at_end"], Keys(&["checkpoint.keep_best"])),
    (&["async_mode"], Keys(&["checkpoint.background"])),
    (&["eval_steps", "eval_every", "eval_interval"], Keys(&["evaluate.every_steps"])),
    (&["logging_steps", "log_every", "log_interval", "log_freq"], Keys(&["log.every_steps"])),
    (&["eval_iters", "eval_batches"], Keys(&["evaluate.max_tokens"])),
    (&["sample_every"], Keys(&["sample.every_steps"])),
    (&["export_dtype"], Keys(&["export.dtype"])),
    (&["do_sample"], Keys(&["sample.temperature"])),
    (&["max_tokens_to_sample", "max_gen_len"], Keys(&["sample.max_new_tokens"])),
    // The run.
    (&["run_name", "experiment_name", "project", "model_tag"], Keys(&["run.name"])),
    (&["random_seed", "manual_seed"], Keys(&["run.seed"])),
    (
        &["output_dir", "out_dir", "save_dir", "work_dir", "log_dir"],
        Advice("give it on the command line: `--runs-dir DIR`"),
    ),
    (
        &["report_to", "wandb", "tensorboard", "wandb_project"],
        Advice("every run writes TensorBoard events: `tensorboard --logdir runs`"),
    ),
];

/// Values from other trainers, and the values they mean here.
const WORDS: &[(&[&str], &str)] = &[
    (&["bfloat16", "bf16-mixed", "torch.bfloat16"], "bf16"),
    (&["float32", "fp32", "float", "32", "torch.float32", "full"], "f32"),
    (&["float16", "fp16", "half", "16-mixed", "torch.float16"], "f16"),
    (&["int8", "8-bit", "8bits"], "8bit"),
    (&["adam", "adamw_torch", "adamw_torch_fused", "torch.optim.adamw"], "adamw"),
    (&["zero3", "full_shard", "fsdp2", "fully_shard"], "fsdp"),
    (&["hybrid_shard", "hybrid"], "hsdp"),
    (&["dp", "data_parallel", "no_shard"], "ddp"),
    (&["warmup_stable_decay", "warmup-stable-decay", "trapezoidal"], "wsd"),
    (&["cosine_with_warmup", "cosine_with_min_lr", "cosineannealing"], "cosine"),
    (&["gpu"], "cuda"),
];

/// What `name`, a key of the table at `path`, means elsewhere.
pub(super) fn meaning_of(name: &str, path: &str) -> Option<Meaning> {
    let name = name.to_lowercase().replace('-', "_");
    let full = super::key_path::join(path, &name);
    let sections = if path.is_empty() { SECTIONS } else { &[] };
    let mut all = sections.iter().chain(FAMILIAR);
    all.find(|(names, _)| names.contains(&full.as_str()) || names.contains(&name.as_str()))
        .map(|(_, meaning)| *meaning)
}

/// The value of `valid` that `word` means elsewhere.
pub(super) fn meant_word<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let (_, ours) = WORDS.iter().find(|(words, _)| words.contains(&word.as_str()))?;
    valid.into_iter().find(|valid| valid == ours)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::shape;

    #[test]
    fn every_name_maps_to_an_existing_key_and_is_not_one() {
        let exists = |path: &str| {
            let (shape, path) = match path.strip_prefix("sweep.") {
                Some(inner) => (shape::sweep(), inner),
                None => (shape::experiment(), path),
            };
            shape.at(path.split('.')).is_some()
        };
        let mut seen = BTreeSet::new();
        for (names, meaning) in SECTIONS.iter().chain(FAMILIAR) {
            for name in *names {
                assert!(seen.insert(*name), "{name} is listed twice");
                assert!(!name.contains('.') || !exists(name), "{name} is a key");
            }
            if let Keys(keys) = meaning {
                keys.iter().for_each(|key| assert!(exists(key), "{key} is not a key"));
            }
        }
    }

    #[test]
    fn paths_apply_in_place_and_names_everywhere() {
        assert_eq!(meaning_of("weights", "train"), Some(Keys(&["train.param_dtype"])));
        assert_eq!(meaning_of("weights", "model"), None);
        assert_eq!(meaning_of("parallel", "sweep"), None);
        assert_eq!(meaning_of("Learning-Rate", "train"), Some(Keys(&["optimizer.lr"])));
        assert_eq!(meant_word("BFloat16", ["f32", "bf16"]), Some("bf16"));
        assert_eq!(meant_word("bfloat16", ["f32"]), None);
    }
}
