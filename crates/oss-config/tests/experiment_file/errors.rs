//! Errors in experiment files: all problems are reported at once, each with its location.

use insta::assert_snapshot;

use crate::{Folder, listed, rendered};

const STORIES: &str = "[dataset]\nbuiltin = \"stories\"\n";

#[test]
fn unknown_keys_and_wrong_values_are_shown_together() {
    assert_snapshot!(rendered(
        r#"lr = 3e-4
colour = true

[dataset]
builtin = "storys"
tokenizer = { trian = 4 }
validation = { fraction = 0.9 }

[datset]
files = ["a.txt"]

[train]
steps = -1
global_batch_size = "40"
precison = "bf16"
activation_checkpointing = 1
sequence_length = 512.0
device = "cdua"

[optimizer]
betas = [0.9]
eps = nan

[model]
layer_types = ["sliding_attention", "ful_attention"]

[export]
checkpoint = "lst"
max_shard_size = "5 parsecs"
"#,
        &[
            "train.precision=bf15",
            "sample.promts=[\"a\"]",
            "sample.prompts=once",
            "sample.stop=[\"a",
            "train"
        ],
    ));
}

#[test]
fn syntax_errors_have_locations() {
    assert_snapshot!(rendered(
        "[run]\nnotes = \"é\"\nlabels = { \"é\" = \"b\", x = 3 }\nname = 5\n[dataset]\nbuiltin = \"stories\"\n",
        &[]
    ));
    assert_snapshot!(rendered("[train]\nsteps = 1\nsteps = 2\n[dataset]\n[train]\nseed = \n", &[]));
    assert_snapshot!(rendered("[dataset]\nbuiltin = stories\n\n[train\nsteps = 1\nsteps = 2\n", &[]));
}

#[test]
fn impossible_combinations_are_shown_together() {
    assert_snapshot!(rendered(
        r#"[run]
name = "../escape"

[dataset]
builtin = "stories"
files = ["a.txt"]
validation = { fraction = 0 }
tokenizer = "o200k_harmon"

[model]
num_attention_heads = 6
num_key_value_heads = 4
head_dim = 33
num_local_experts = 2
num_experts_per_tok = 3
num_hidden_layers = 3
layer_types = ["sliding_attention"]

[schedule]
warmup_steps = 2000

[train]
global_batch_size = 40
micro_batch_size = 3

[sharding]
ranks = 2

[export]
checkpoint = "best"
"#,
        &[],
    ));
}

#[test]
fn hyperparameters_are_keys() {
    let named = |keys: &str| rendered(&format!("{STORIES}[log]\nhparams = [{keys}]\n"), &[]);
    let seen = named(r#""optimizer.lr", "optimizer", "lr""#);
    assert!(seen.contains("`log.hparams` names `optimizer`, which is not a key"), "{seen}");
    assert!(seen.contains("`log.hparams` names `lr`, which is not a key"), "{seen}");
    assert!(!seen.contains("names `optimizer.lr`"), "{seen}");
}

#[test]
fn conflicts_with_in_backward_updates_are_rejected() {
    let values = "[optimizer]\nupdate = \"in_backward\"\nmax_grad_norm = 1.0\n\
                  [train]\nprecision = \"f16\"\nparam_dtype = \"bf16\"\n";
    assert_snapshot!(rendered(&format!("{STORIES}{values}"), &[]));
}

#[test]
fn a_useless_momentum_is_reported() {
    let named = |values: &str| rendered(&format!("{STORIES}[optimizer]\n{values}"), &[]);
    let seen = named("kind = \"muon\"\nmomentum = 1.0\n");
    assert!(seen.contains("set optimizer.momentum below 1, such as 0.95"), "{seen}");
    let folder = Folder::new(&[("e.toml", &format!("{STORIES}[optimizer]\nmomentum = 0.9\n"))]);
    let warnings = folder.load("e.toml", &[]).expect("only warnings").warnings.join("\n");
    assert!(warnings.contains("`optimizer.momentum` has no effect"), "{warnings}");
}

#[test]
fn tokenizers_and_their_end_of_text_are_checked() {
    let seen = |values: &str| rendered(&format!("{STORIES}{values}\n"), &[]);
    for name in ["o/n@", "o/n@a/../b", "o /n"] {
        let message = seen(&format!("tokenizer = \"{name}\""));
        assert!(message.contains("on the Hub"), "{name}: {message}");
    }
    assert!(seen("end_of_text = \"\"").contains("`dataset.end_of_text` is empty"));
    let trained = seen("tokenizer = { train = 300 }\nend_of_text = \"</s>\"");
    assert!(trained.contains("remove `end_of_text`"), "{trained}");
}

#[test]
fn unsafe_origins_are_rejected() {
    assert_snapshot!(
        listed(
            r#"[[dataset.source]]
name = "a"
hub = { repo = "../etc", files = ["../passwd", "/etc/passwd", "a\u0000b", "ok.txt"], revision = "" }

[[dataset.source]]
name = "a"
weight = 0
files = []

[[dataset.source]]
name = "c"
hub = { files = ["x"] }

[[dataset.source]]
builtin = "stories"

[dataset.validation]
hub = { repo = "a/b/c", files = [] }
"#,
            &[],
        )
        .join("\n")
    );
    assert_snapshot!(listed("[[dataset.source]]\nname = \"a\"\n\n[[dataset.source]]\nname = \"a\"\nbuiltin = \"stories\"\nfiles = [\"\"]\n[dataset.validation]\nhub = { repo = \"a/b/c\", files = [\"../x\", \"/y\", \"a\\u0000b\"] }\n", &[]).join("\n"));
}

#[test]
fn urls_are_neither_files_nor_names() {
    let text = r#"[[dataset.source]]
name = "a"
files = ["s3://bucket/x.jsonl", "hf://datasets/o/n/x.parquet"]

[[dataset.source]]
name = "b"
hub = { repo = "https://huggingface.co/datasets/roneneldan/TinyStories", files = ["x.txt"] }

[dataset]
tokenizer = "https://huggingface.co/openai/gpt-oss-20b"
validation = { files = ["https://a.b/c.txt.gz"] }

[model]
init_from = "s3://bucket/model"
"#;
    assert_snapshot!(listed(text, &[]).join("\n"));
}

#[test]
fn files_in_other_formats_are_named() {
    assert_snapshot!(rendered("train:\n  steps: 3\n", &[]));
    let folder = Folder::new(&[
        ("a.json", "{ \"train\": {} }"),
        ("b.toml", "extends = \"c.yaml\"\n"),
        ("c.yaml", "train:\n  steps: 3\n"),
    ]);
    for (name, message) in [
        ("a.json", "a.json is JSON; experiments are TOML"),
        ("b.toml", "c.yaml is YAML; experiments are TOML"),
    ] {
        let errors = folder.load(name, &[]).expect_err("no TOML");
        let [problem] = errors.problems() else { panic!("{errors}") };
        assert_eq!(folder.plain(problem.message()), message);
    }
}

#[test]
fn missing_text_sources_are_reported() {
    assert_snapshot!(rendered("", &[]));
    assert_snapshot!(rendered("[dataset]\ntext_field = \"story\"\n", &["evaluate.every_steps=0"]));
}

#[test]
fn files_that_extend_badly() {
    let folder = Folder::new(&[
        ("a.toml", "extends = \"b.toml\"\n[dataset]\nbuiltin = \"stories\"\n"),
        ("b.toml", "extends = \"a.toml\"\n"),
        ("missing.toml", "extends = [\"a/none.toml\", 3]\n"),
        ("wrong_base.toml", "extends = \"typo.toml\"\n[train]\nprecision = \"bf15\"\n"),
        ("typo.toml", "[dataset]\nbuiltin = \"stories\"\n[train]\nstep = 3\n"),
    ]);
    std::fs::write(folder.path("latin.toml"), b"[run]\nnotes = \"caf\xe9\"\n").expect("written");
    let shown = ["a.toml", "missing.toml", "wrong_base.toml", "latin.toml", "nowhere.toml"].map(|name| {
        let errors = folder.load(name, &[]).expect_err("the file is wrong");
        format!("# {name}\n{}", folder.plain(&errors.render(false, 110)))
    });
    assert_snapshot!(shown.concat());
}

#[test]
fn schedules_that_end_elsewhere_are_warnings() {
    let folder = Folder::new(&[(
        "e.toml",
        &format!("{STORIES}[schedule]\ndecay_steps = 500\n[optimizer]\nlr = 0.5\n"),
    )]);
    let warnings = folder.load("e.toml", &[]).expect("only warnings").warnings;
    assert_snapshot!(folder.plain(&warnings.join("\n")));
}

#[test]
fn bounds_of_single_values() {
    let set = [
        "train.steps=0",
        "train.threads=0",
        "train.max_minutes=0",
        "train.global_batch_size=99999999999999999999",
        "optimizer.lr=-1",
        "optimizer.betas=[0.9, 1]",
        "optimizer.eps=inf",
        "sample.temperature=-0.1",
        "sample.top_p=1.5",
        "sample.top_k=0",
        "schedule.min_lr_ratio=2",
        "dataset.tokenizer={ train = 256 }",
        "model.hidden_size=0",
        "model.rope_theta=1",
        "run.seed=1979-05-27",
        "run.deterministic=yes",
        "log.every_steps=ten",
    ];
    assert_snapshot!(listed(STORIES, &set).join("\n"));
}
