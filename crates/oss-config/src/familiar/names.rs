//! The names, separated by spaces, and what they mean.

use super::Meaning::{self, Advice, Keys};

/// Names of sections.
pub(super) const SECTIONS: &[(&str, Meaning)] = &[
    ("training trainer training_args trainer_args", Keys(&["train"])),
    ("data datasets data_args", Keys(&["dataset"])),
    ("optim", Keys(&["optimizer"])),
    ("scheduler lr_scheduler scheduling", Keys(&["schedule"])),
    ("distributed parallel parallelism parallelize deepspeed", Keys(&["sharding"])),
    ("checkpoints checkpointing", Keys(&["checkpoint"])),
    ("eval evaluation", Keys(&["evaluate"])),
    ("generate generation sampling", Keys(&["sample"])),
    ("logging metrics", Keys(&["log"])),
    ("experiment job", Keys(&["run"])),
];

/// Names and what they mean. A name with a dot applies only at that path, any other in every table.
pub(super) const FAMILIAR: &[(&str, Meaning)] = &[
    // Names of earlier versions.
    ("train.weights", Keys(&["train.param_dtype"])),
    ("train.recompute", Keys(&["train.activation_checkpointing"])),
    ("train.balance_loss", Keys(&["train.router_aux_loss_coef"])),
    ("optimizer.state", Keys(&["optimizer.state_dtype"])),
    ("dataset.validation.share", Keys(&["dataset.validation.fraction"])),
    ("sharding.ranks_per_replica dp_shard_size dp_replicate_size", Keys(&["sharding.shard_degree"])),
    ("sharding.offload_optimizer", Keys(&["sharding.optimizer_cpu_offload"])),
    ("sweep.halving.reduction sweep.halving.eta", Keys(&["sweep.halving.reduction_factor"])),
    // Sweeps (Hydra, W&B, Optuna, Ray).
    ("sweep.grid sweep.params sweep.space sweep.search_space sweep.param_space", Keys(&["sweep.parameters"])),
    (
        "sweep.n_trials sweep.max_trials sweep.num_samples sweep.count sweep.run_cap",
        Keys(&["sweep.num_trials"]),
    ),
    ("sweep.n_jobs sweep.max_concurrent_trials sweep.workers", Keys(&["sweep.parallel"])),
    ("sweep.goal sweep.mode", Keys(&["sweep.direction"])),
    // Any table with a kind.
    ("optimizer.type optimizer.name optimizer_type optim_type", Keys(&["optimizer.kind"])),
    (
        "schedule.type schedule.name lr_scheduler_type lr_schedule lr_decay_style decay_type decay_lr \
         lr_scheduler_kwargs",
        Keys(&["schedule.kind"]),
    ),
    // Steps and batches.
    (
        "batch_size train_batch_size per_device_train_batch_size bs bsz train_bs",
        Keys(&["train.global_batch_size", "train.micro_batch_size"]),
    ),
    (
        "device_batch_size micro_batch mbs local_batch_size micro_bs micro_batch_size_per_gpu",
        Keys(&["train.micro_batch_size"]),
    ),
    ("global_batch gbs total_batch_size", Keys(&["train.global_batch_size"])),
    (
        "gradient_accumulation_steps grad_accum_steps accumulate_grad_batches grad_accumulation \
         gradient_accumulation accumulate accum accumulation_steps",
        Advice(
            "accumulation follows from `train.global_batch_size`, `train.micro_batch_size` and `sharding.ranks`: set these",
        ),
    ),
    ("epochs num_epochs num_train_epochs max_epochs", Keys(&["train.epochs"])),
    (
        "total_tokens num_tokens train_tokens max_train_tokens train_samples target_flops",
        Advice("set `train.steps`; `oss-run plan` shows how many tokens and FLOPs that makes"),
    ),
    (
        "tokens_per_batch batch_tokens",
        Advice("the tokens of a step are `train.global_batch_size` times `train.sequence_length`: set these"),
    ),
    (
        "packing sample_packing pad_to_sequence_len group_by_length padding pad_token_id",
        Advice(
            "documents are always packed, without padding; `train.document_mask` keeps attention inside each",
        ),
    ),
    (
        "shuffle shuffle_seed dataloader_drop_last streaming",
        Advice("the order of the batches is random, and follows from `run.seed`"),
    ),
    (
        "max_steps num_steps total_steps train_steps num_iterations max_iters train_iters num_train_steps \
         iterations iters max_train_steps",
        Keys(&["train.steps"]),
    ),
    (
        "seq_len seq_length max_seq_len max_seq_length block_size context_length n_ctx max_length \
         sequence_len ctx_len context_window context_size",
        Keys(&["train.sequence_length"]),
    ),
    // The optimizer and its schedule.
    ("learning_rate max_lr peak_lr base_lr matrix_lr embedding_lr unembedding_lr", Keys(&["optimizer.lr"])),
    ("beta beta1 beta2 adam_beta1 adam_beta2", Keys(&["optimizer.betas"])),
    ("epsilon adam_epsilon", Keys(&["optimizer.eps"])),
    ("decay wd l2", Keys(&["optimizer.weight_decay"])),
    (
        "grad_clip gradient_clip gradient_clip_val clip_grad_norm clip_norm max_norm clip clip_grad \
         max_gradient_norm grad_norm_clip",
        Keys(&["optimizer.max_grad_norm"]),
    ),
    (
        "warmup num_warmup_steps warmup_iters warmup_ratio lr_warmup_steps lr_warmup_iters \
         lr_warmup_fraction warmup_fraction warmup_epochs",
        Keys(&["schedule.warmup_steps"]),
    ),
    ("muon_momentum", Keys(&["optimizer.momentum"])),
    (
        "min_lr final_lr end_lr lr_min final_lr_frac min_lr_factor lr_end min_lr_rate end_factor cosine_min_lr_ratio",
        Keys(&["schedule.min_lr_ratio"]),
    ),
    (
        "lr_decay_iters num_decay_steps cooldown_steps cooldown cooldown_iters warmdown_iters \
         warmdown_ratio decay_ratio decay_iters",
        Keys(&["schedule.decay_steps"]),
    ),
    // Precision, memory and the auxiliary loss.
    (
        "bf16 fp16 mixed_precision amp autocast torch_dtype tf32 mixed_precision_param precision_mode \
         use_amp",
        Keys(&["train.precision"]),
    ),
    ("dtype", Keys(&["train.precision", "export.dtype"])),
    ("fp8 float8", Advice("set `train.precision` to f32, bf16 or f16: there is no training in 8 bits")),
    (
        "load_in_8bit load_in_4bit quantization_config",
        Advice("weights are trained in f32, or with `train.param_dtype` in bf16"),
    ),
    (
        "compile torch_compile attn_implementation flash_attention use_flash_attn xformers_attention \
         use_liger_kernel",
        Advice("omit it: fused kernels are used wherever they exist"),
    ),
    (
        "gradient_checkpointing activation_recompute checkpoint_activations gradient_checkpointing_kwargs \
         activation_checkpoint recompute_granularity recompute_activations",
        Keys(&["train.activation_checkpointing"]),
    ),
    (
        "aux_loss_coef moe_aux_loss_coeff load_balancing_loss aux_loss router_aux_loss",
        Keys(&["train.router_aux_loss_coef"]),
    ),
    // The model.
    (
        "n_layers n_layer num_layers layers depth hidden_layers encoder_layers",
        Keys(&["model.num_hidden_layers"]),
    ),
    ("d_model n_embd n_embed dim embed_dim hidden_dim width", Keys(&["model.hidden_size"])),
    ("n_heads n_head num_heads heads", Keys(&["model.num_attention_heads"])),
    ("n_kv_heads n_kv_head num_kv_heads kv_heads num_query_groups", Keys(&["model.num_key_value_heads"])),
    ("num_experts n_experts n_routed_experts experts", Keys(&["model.num_local_experts"])),
    (
        "experts_per_token num_active_experts n_activated_experts moe_top_k num_experts_per_token \
         active_experts moe_router_topk router_topk",
        Keys(&["model.num_experts_per_tok"]),
    ),
    (
        "ffn_dim ffn_hidden_size moe_intermediate_size d_ff moe_ffn_hidden_size mlp_dim expert_dim \
         inner_dim intermediate_dim",
        Keys(&["model.intermediate_size"]),
    ),
    ("n_vocab vocabulary_size vocab vocabulary", Keys(&["model.vocab_size"])),
    ("norm_eps layer_norm_eps norm_epsilon layer_norm_epsilon", Keys(&["model.rms_norm_eps"])),
    ("init_std initializer_std init_method_std", Keys(&["model.initializer_range"])),
    ("rotary_base rope_base", Keys(&["model.rope_theta"])),
    ("rope_scaling_factor", Keys(&["model.rope_scaling.factor"])),
    ("n_positions", Keys(&["model.max_position_embeddings"])),
    ("attention_window window_size sliding_window_size", Keys(&["model.sliding_window"])),
    ("window_pattern", Keys(&["model.layer_types"])),
    ("flavor model_type model_size", Keys(&["model.preset"])),
    (
        "dropout attention_dropout hidden_dropout resid_pdrop label_smoothing label_smoothing_factor",
        Advice("omit it: models of this architecture are trained without dropout and label smoothing"),
    ),
    (
        "tie_word_embeddings tie_embeddings weight_tying",
        Advice("omit it: as in gpt-oss, the output head has weights of its own"),
    ),
    ("hidden_act activation bias attention_bias", Advice("omit it: the architecture is that of gpt-oss")),
    ("capacity_factor drop_tokens", Advice("omit it: experts have no capacity, and no token is dropped")),
    (
        "lora lora_r lora_alpha lora_dropout lora_target_modules adapter peft qlora",
        Advice("omit it: all weights are trained; set `model.init_from` to start from a model"),
    ),
    (
        "model_name_or_path pretrained pretrained_model model_name model_path checkpoint_path \
         init_checkpoint base_model model_id pretrained_model_name_or_path initial_load_path",
        Keys(&["model.init_from"]),
    ),
    (
        "resume_from_checkpoint resume_from resume resume_from_step auto_resume",
        Advice("run the same file again, or `oss-run resume RUN`"),
    ),
    // Text.
    (
        "path paths data_path data_files train_file train_files data_dir train_data train_path corpus \
         input input_file input_files dataset_path pretraining_dataset",
        Keys(&["dataset.files"]),
    ),
    ("dataset_name hf_dataset", Keys(&["dataset.hub"])),
    (
        "split subset dataset_config dataset_config_name config_name",
        Advice("name the files to read: `hub = { repo = \"owner/name\", files = [\"data/train.parquet\"] }`"),
    ),
    (
        "text_column dataset_text_field content_field text_key text_column_name content_key",
        Keys(&["dataset.text_field"]),
    ),
    ("on_bad_lines ignore_errors skip_bad_rows", Keys(&["dataset.on_bad_row"])),
    ("strip strip_whitespace trim_whitespace", Keys(&["dataset.trim"])),
    (
        "tokenizer_name tokenizer_path tokenizer_file tokenizer_name_or_path tokenizer_dir \
         tokenizer_model tokenizer_type hf_assets_path vocab_file merge_file tokenizer_config",
        Keys(&["dataset.tokenizer"]),
    ),
    ("eos_token eos eod_token end_token eos_token_id eos_id", Keys(&["dataset.end_of_text"])),
    (
        "val_split validation_split test_size val_fraction val_set_size val_ratio valid_fraction holdout \
         eval_fraction dev_split",
        Keys(&["dataset.validation.fraction"]),
    ),
    (
        "validation_file val_file val_data valid_data eval_dataset validation_data valid_files eval_file test_datasets",
        Keys(&["dataset.validation.files"]),
    ),
    // Devices and ranks.
    (
        "gpu gpus num_gpus n_gpus nproc_per_node world_size num_processes devices n_gpu ngpu ngpus \
         num_devices",
        Keys(&["sharding.ranks"]),
    ),
    ("accelerator no_cuda use_cpu device_type use_gpu", Keys(&["train.device"])),
    (
        "local_rank num_nodes nnodes master_addr master_port",
        Advice("start the ranks with torchrun or SLURM, and set `sharding.ranks` to their number"),
    ),
    ("distributed_backend ddp_backend dist_backend", Keys(&["sharding.backend"])),
    ("timeout ddp_timeout nccl_timeout", Keys(&["sharding.timeout_seconds"])),
    ("data_parallel_shard_degree data_parallel_replicate_degree dp_size", Keys(&["sharding.shard_degree"])),
    (
        "tensor_parallel_degree tensor_model_parallel_size pipeline_parallel_degree \
         pipeline_model_parallel_size context_parallel_degree expert_parallel_degree \
         expert_model_parallel_size tp pp",
        Advice("models are sharded by parameters only: set `sharding.strategy` to fsdp or hsdp"),
    ),
    (
        "cpu_offload offload enable_cpu_offload fsdp_cpu_offload offload_params",
        Keys(&["sharding.optimizer_cpu_offload"]),
    ),
    (
        "zero_stage sharding_strategy fsdp fsdp_config fsdp_sharding_strategy fsdp_version",
        Keys(&["sharding.strategy"]),
    ),
    ("num_threads num_workers dataloader_num_workers omp_num_threads", Keys(&["train.threads"])),
    // Cadence.
    (
        "save_steps save_every save_interval checkpoint_interval save_strategy save_freq saves_per_epoch \
         checkpoint_every checkpoint_freq",
        Keys(&["checkpoint.every_steps"]),
    ),
    (
        "save_total_limit keep_latest_k keep_last_n max_to_keep max_checkpoints keep_checkpoints",
        Keys(&["checkpoint.keep_last"]),
    ),
    ("load_best_model_at_end save_best save_best_only", Keys(&["checkpoint.keep_best", "export.checkpoint"])),
    ("sample_every generate_every", Keys(&["sample.every_steps"])),
    ("max_time time_limit max_hours", Keys(&["train.max_minutes"])),
    (
        "eval_steps eval_every eval_interval eval_strategy evaluation_strategy evals_per_epoch val_every \
         val_interval validation_interval val_check_interval do_eval",
        Keys(&["evaluate.every_steps"]),
    ),
    ("logging_steps log_every log_interval logging_strategy log_freq log_steps", Keys(&["log.every_steps"])),
    (
        "eval_iters eval_batches eval_tokens limit_val_batches max_eval_samples",
        Keys(&["evaluate.max_tokens"]),
    ),
    ("do_sample", Keys(&["sample.temperature"])),
    ("stop_sequences stop_token stop_words", Keys(&["sample.stop"])),
    ("num_return_sequences", Keys(&["sample.num_samples"])),
    ("max_tokens_to_sample max_gen_len", Keys(&["sample.max_new_tokens"])),
    // The run.
    ("run_name experiment_name project wandb_run_name model_tag", Keys(&["run.name"])),
    ("random_seed manual_seed seed_everything data_seed", Keys(&["run.seed"])),
    (
        "output_dir out_dir save_dir work_dir log_dir logging_dir dump_folder checkpoint_dir save_folder",
        Advice("give it on the command line: `--runs-dir DIR`"),
    ),
    ("log_level verbose disable_tqdm", Advice("give it on the command line: `-q`, `-v` or `-vv`")),
    ("do_train eval_only", Advice("give it on the command line: `--until STAGE`, or `oss-run evaluate RUN`")),
    (
        "overwrite_output_dir exist_ok",
        Advice("omit it: each experiment has a directory of its own, and `--new` starts another run"),
    ),
    ("export_dtype", Keys(&["export.dtype"])),
    ("push_to_hub hub_model_id", Advice("upload the exported directory with `hf upload`")),
    (
        "report_to wandb tensorboard wandb_project wandb_log enable_tensorboard logger_name use_wandb \
         wandb_entity",
        Advice("every run writes TensorBoard events: `tensorboard --logdir runs`"),
    ),
    ("sweep.early_terminate", Keys(&["sweep.halving"])),
    ("sweep.halving.min_iter", Keys(&["sweep.halving.min_steps"])),
    ("early_step_in_backward", Keys(&["optimizer.update"])),
    ("async_mode", Keys(&["checkpoint.background"])),
    ("early_stopping early_stopping_patience early_stopping_rounds", Keys(&["evaluate.patience"])),
];

/// Values from other trainers, and the values they mean here.
pub(super) const WORDS: &[(&str, &str)] = &[
    ("bfloat16 bf16-mixed torch.bfloat16", "bf16"),
    ("float32 fp32 float 32 torch.float32 full", "f32"),
    ("float16 fp16 half 16-mixed torch.float16", "f16"),
    ("int8 8-bit 8bits", "8bit"),
    ("adam adamw_torch adamw_torch_fused torch.optim.adamw adamw_8bit adamw_bnb_8bit", "adamw"),
    ("zero3 full_shard fsdp2 fully_shard", "fsdp"),
    ("hybrid_shard hybrid", "hsdp"),
    ("dp data_parallel no_shard", "ddp"),
    ("warmup_stable_decay warmup-stable-decay trapezoidal", "wsd"),
    ("cosine_with_warmup cosine_with_min_lr cosineannealing cosine_annealing cosine_decay", "cosine"),
    ("linear_with_warmup linear_decay", "linear"),
    ("constant_with_warmup none", "constant"),
    ("gpu", "cuda"),
    ("min minimise lower", "minimize"),
    ("max maximise higher", "maximize"),
    ("gpt-oss-20b gpt_oss_20b openai/gpt-oss-20b", "20b"),
    ("gpt-oss-120b gpt_oss_120b openai/gpt-oss-120b", "120b"),
    ("gpt2 gpt-2", "r50k_base"),
    ("gpt4 gpt-4", "cl100k_base"),
    ("gpt-4o gpt4o", "o200k_base"),
    ("gpt-oss harmony", "o200k_harmony"),
    ("byte byte-level byte_level utf-8 utf8", "bytes"),
];
