//! Names from other trainers, and those of earlier versions, lead to the key that was meant.

use crate::listed;

/// The one problem of a file with `line` in `[section]`.
fn problem(section: &str, line: &str) -> String {
    let problems = listed(&format!("[dataset]\nbuiltin = \"stories\"\n[{section}]\n{line}\n"), &[]);
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    problem.clone()
}

#[test]
fn names_from_other_trainers_get_suggestions() {
    for (section, line, meant) in [
        ("train", "batch_size = 8", "did you mean `global_batch_size` or `micro_batch_size`?"),
        ("train", "learning_rate = 1e-3", "did you mean `optimizer.lr`?"),
        ("optimizer", "type = \"adamw\"", "did you mean `kind`?"),
        ("model", "n_layers = 4", "did you mean `num_hidden_layers`?"),
        ("train", "gpus = 2", "did you mean `sharding.ranks`?"),
        ("train", "num_train_epochs = 3", "did you mean `epochs`?"),
        ("training", "steps = 3", "did you mean `train`?"),
        ("train", "base_model = \"a/b\"", "did you mean `model.init_from`?"),
        ("train", "val_set_size = 0.1", "did you mean `dataset.validation.fraction`?"),
        ("train", "local_batch_size = 8", "did you mean `micro_batch_size`?"),
        ("checkpoint", "async_mode = \"async\"", "did you mean `background`?"),
        ("sharding", "dp_shard_size = 2", "did you mean `shard_degree`?"),
        ("train", "lr_warmup_iters = 3", "did you mean `schedule.warmup_steps`?"),
        ("train", "attention_dropout = 0.1", "are trained without dropout and label smoothing"),
        ("model", "kv_heads = 2", "did you mean `num_key_value_heads`?"),
        ("train", "tensor_parallel_degree = 2", "set `sharding.strategy` to fsdp or hsdp"),
        ("train", "packing = true", "`train.document_mask` keeps attention inside each"),
        (
            "train",
            "load_best_model_at_end = true",
            "did you mean `checkpoint.keep_best` or `export.checkpoint`?",
        ),
        ("checkpoint", "max_to_keep = 3", "did you mean `keep_last`?"),
    ] {
        assert!(problem(section, line).ends_with(meant), "{}", problem(section, line));
    }
}

#[test]
fn a_section_is_not_suggested_inside_itself() {
    let inside = problem("optimizer", "optimizer = \"muon\"");
    assert!(inside.contains("valid keys: kind, "), "{inside}");
    // Near a name of one of its keys.
    let inside = problem("schedule", "lr_scheduler = \"cosine\"");
    assert!(inside.ends_with("did you mean `kind`?"), "{inside}");
}

#[test]
fn names_from_earlier_versions_get_suggestions() {
    for (section, line, meant) in [
        ("train", "weights = \"bf16\"", "did you mean `param_dtype`?"),
        ("train", "recompute = true", "did you mean `activation_checkpointing`?"),
        ("train", "balance_loss = 0.1", "did you mean `router_aux_loss_coef`?"),
        ("optimizer", "state = \"8bit\"", "did you mean `state_dtype`?"),
        ("dataset.validation", "share = 0.1", "did you mean `fraction`?"),
        ("sharding", "ranks_per_replica = 2", "did you mean `shard_degree`?"),
        ("sharding", "offload_optimizer = true", "did you mean `optimizer_cpu_offload`?"),
    ] {
        assert!(problem(section, line).ends_with(meant), "{}", problem(section, line));
    }
}

#[test]
fn values_from_other_trainers_get_suggestions() {
    for (section, line, meant) in [
        ("train", "precision = \"bfloat16\"", "did you mean \"bf16\"?"),
        ("model", "preset = \"gpt-oss-20b\"", "did you mean \"20b\"?"),
        ("optimizer", "kind = \"adam\"", "did you mean \"adamw\"?"),
        ("schedule", "kind = \"cosine_with_min_lr\"", "did you mean \"cosine\"?"),
        ("dataset.validation", "split = \"train\"", "name the files to read"),
    ] {
        assert!(problem(section, line).contains(meant), "{}", problem(section, line));
    }
}

#[test]
fn familiar_names_are_known_in_arguments_and_sweeps() {
    let stories = "[dataset]\nbuiltin = \"stories\"\n";
    let only = |text: &str, set: &[&str]| {
        let problems = listed(text, set);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        problem.clone()
    };
    for (argument, meant) in [
        ("learning_rate=1", "did you mean `optimizer.lr`?"),
        ("train.lerning_rate=1", "did you mean `optimizer.lr`?"),
        ("train.batch_size=2", "did you mean `global_batch_size` or `micro_batch_size`?"),
        ("optimizer=adamw", "write optimizer.kind = \"adamw\""),
        ("model=20b", "write model.preset = \"20b\""),
        ("train=fast", "write its keys under [train]"),
    ] {
        assert!(only(stories, &[argument]).ends_with(meant), "{}", only(stories, &[argument]));
    }
    for (line, meant) in [
        ("learning_rate = [1e-3]", "did you mean `optimizer.lr`?"),
        ("optimizer.learning_rate = [1e-3]", "did you mean `lr`?"),
        ("train.batch_size = [2]", "did you mean `global_batch_size` or `micro_batch_size`?"),
    ] {
        let problem = only(&format!("{stories}[sweep.parameters]\n{line}\n"), &[]);
        assert!(problem.ends_with(meant), "{problem}");
    }
}
