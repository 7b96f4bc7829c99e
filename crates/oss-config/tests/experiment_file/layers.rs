//! Precedence of layers, and the reported origin of each value.

use std::path::PathBuf;

use oss_config::{Dataset, Precision, SetBy, TextKeys, TokenizerChoice};

use crate::Folder;

const STORIES: &str = "[dataset]\nbuiltin = \"stories\"\n";

fn set_by(folder: &Folder, file: &str, line: usize, column: usize) -> SetBy {
    SetBy::File { path: folder.path(file), line, column }
}

#[test]
fn later_layers_override_earlier_ones() {
    let folder = Folder::new(&[
        ("base/one.toml", "[train]\nsteps = 100\nprecision = \"bf16\"\nsequence_length = 64\n"),
        ("base/two.toml", "[train]\nsteps = 200\nmax_minutes = 5\n"),
        (
            "top.toml",
            "extends = [\"base/one.toml\", \"base/two.toml\"]\n\n[dataset]\nbuiltin = \"stories\"\n\n[train]\nsequence_length = 32\n",
        ),
    ]);
    let resolved =
        folder.load("top.toml", &["train.global_batch_size=8", "optimizer.lr=3e-4"]).expect("loads");
    let train = &resolved.experiment.train;
    assert_eq!((train.steps, train.precision, train.sequence_length), (200, Precision::Bf16, 32));
    assert_eq!(train.max_minutes, Some(5.0), "an integer is accepted for a float");
    assert_eq!(train.global_batch_size, 8);
    assert_eq!(resolved.experiment.optimizer.lr, 3e-4, "figment would read this as a string");

    let provenance = &resolved.provenance;
    assert_eq!(*provenance.of("train.steps"), set_by(&folder, "base/two.toml", 2, 9));
    assert_eq!(*provenance.of("train.precision"), set_by(&folder, "base/one.toml", 3, 13));
    assert_eq!(*provenance.of("train.sequence_length"), set_by(&folder, "top.toml", 7, 19));
    let argument = SetBy::Argument { argument: "train.global_batch_size=8".into() };
    assert_eq!(*provenance.of("train.global_batch_size"), argument);
    assert_eq!(*provenance.of("train.activation_checkpointing"), SetBy::Default);
    assert_eq!(*provenance.of("run.name"), SetBy::FileName);
    assert_eq!(resolved.experiment.run.name.as_deref(), Some("top"));
}

#[test]
fn a_file_that_two_others_extend_is_one_layer_beneath_both() {
    let folder = Folder::new(&[
        ("root.toml", "[dataset]\nbuiltin = \"stories\"\n[train]\nsteps = 100\nthreads = 1\n"),
        ("left.toml", "extends = \"root.toml\"\n[train]\nsteps = 200\nthreads = 2\n"),
        ("right.toml", "extends = \"./root.toml\"\n[train]\nthreads = 3\n"),
        ("top.toml", "extends = [\"left.toml\", \"right.toml\"]\n"),
        ("root_again.toml", "extends = [\"left.toml\", \"root.toml\"]\n"),
    ]);
    let resolved = folder.load("top.toml", &[]).expect("a diamond is not a cycle");
    assert_eq!((resolved.experiment.train.steps, resolved.experiment.train.threads), (200, Some(3)));
    assert_eq!(*resolved.provenance.of("train.steps"), set_by(&folder, "left.toml", 3, 9));
    assert_eq!(*resolved.provenance.of("dataset.builtin"), set_by(&folder, "root.toml", 2, 11));
    let again = folder.load("root_again.toml", &[]).expect("loads");
    assert_eq!(again.experiment.train.steps, 200, "a base does not undo what extends it");
}

#[test]
fn a_symbolic_link_to_a_file_means_the_file() {
    let folder = Folder::new(&[
        ("real/base.toml", "[dataset]\nfiles = [\"a.txt\"]\n[train]\nsteps = 700\n"),
        ("real/child.toml", "extends = \"base.toml\"\n[dataset.validation]\nfiles = [\"v.txt\"]\n"),
        ("links/base.toml", "[train]\nsteps = 800\n"),
    ]);
    let link = folder.path("links/child.toml");
    std::os::unix::fs::symlink(folder.path("real/child.toml"), &link).expect("links work here");
    let resolved = folder.load("links/child.toml", &[]).expect("loads");
    let Dataset { files, validation, .. } = resolved.experiment.dataset;
    let real = |name: &str| Some(vec![folder.path("real").join(name).display().to_string()]);
    assert_eq!((files, validation.files), (real("a.txt"), real("v.txt")));
    assert_eq!(resolved.experiment.train.steps, 700);
    assert_eq!(*resolved.provenance.of("train.steps"), set_by(&folder, "real/base.toml", 4, 9));
    assert_eq!(resolved.experiment.run.name.as_deref(), Some("child"));
    // A linked directory changes nothing: it has the same files.
    std::os::unix::fs::symlink(folder.path("real"), folder.path("linked")).expect("links work here");
    assert_eq!(folder.load("linked/child.toml", &[]).expect("loads").experiment.train.steps, 700);
}

#[test]
fn a_source_may_have_its_own_field_and_separator() {
    let folder = Folder::new(&[(
        "e.toml",
        "[dataset]\ntext_field = \"body\"\n[[dataset.source]]\nname = \"a\"\nfiles = [\"a.txt\"]\n\
         [[dataset.source]]\nname = \"b\"\nfiles = [\"b.jsonl\"]\ntext_field = \"meta.text\"\nseparator = \"---\"\n\
         [dataset.validation]\nfiles = [\"v.jsonl\"]\ntext_field = \"v\"\n",
    )]);
    let dataset = folder.load("e.toml", &[]).expect("loads").experiment.dataset;
    let keys = |text_field, separator| TextKeys { text_field, separator };
    assert_eq!(dataset.source_text_keys("a"), keys("body", "<|endoftext|>"));
    assert_eq!(dataset.source_text_keys("b"), keys("meta.text", "---"));
    assert_eq!(dataset.source_text_keys("main"), keys("body", "<|endoftext|>"));
    assert_eq!(dataset.validation_text_keys(), keys("v", "<|endoftext|>"));
    let held_out = ["dataset.validation.fraction=0.1"];
    let warnings = folder.load("e.toml", &held_out).expect("loads").warnings;
    assert!(warnings[0].contains("`dataset.validation.text_field` has no effect"), "{warnings:?}");
    for set in ["dataset.validation.text_field=", "dataset.validation.separator=\"a\\nb\""] {
        folder.load("e.toml", &[set]).expect_err(set);
    }
}

#[test]
fn a_preset_applies_in_the_layer_that_names_it() {
    let folder = Folder::new(&[
        ("base.toml", "[dataset]\nbuiltin = \"stories\"\n[model]\npreset = \"110m\"\nhidden_size = 128\n"),
        ("stronger.toml", "extends = \"base.toml\"\n[model]\npreset = \"tiny\"\nhead_dim = 8\n"),
        ("field.toml", "extends = \"base.toml\"\n[model]\nsliding_window = 8\n"),
    ]);
    let stronger = folder.load("stronger.toml", &[]).expect("loads");
    let model = &stronger.experiment.model;
    assert_eq!(model.hidden_size, 64, "the stronger layer's preset wins over a weaker layer's field");
    assert_eq!(model.head_dim, 8, "a field next to the preset wins over it");
    assert_eq!(model.preset, None, "a preset is written out");
    let tiny =
        SetBy::Preset { name: "tiny".into(), named: Box::new(set_by(&folder, "stronger.toml", 3, 10)) };
    assert_eq!(*stronger.provenance.of("model.hidden_size"), tiny);
    assert_eq!(stronger.provenance.of("model.head_dim").to_string(), {
        let path = folder.path("stronger.toml");
        format!("{}:4:12", path.display())
    });

    let field = folder.load("field.toml", &[]).expect("loads").experiment.model;
    assert_eq!((field.hidden_size, field.sliding_window, field.num_hidden_layers), (128, 8, 8));

    for set in [["model.preset=tiny", "model.hidden_size=32"], ["model.hidden_size=32", "model.preset=tiny"]]
    {
        let model = folder.load("base.toml", &set).expect("loads").experiment.model;
        assert_eq!((model.hidden_size, model.num_hidden_layers), (32, 2), "arguments are one layer");
    }
    let without = folder.unset("base.toml", &["model.preset"], &[]).expect("loads").experiment.model;
    assert_eq!((without.hidden_size, without.num_hidden_layers), (128, 24));
}

#[test]
fn a_stronger_origin_replaces_the_others() {
    let folder = Folder::new(&[
        (
            "base.toml",
            "[dataset]\nhub = { repo = \"a/b\", files = [\"c.txt\"] }\nvalidation = { files = [\"v.txt\"] }\n",
        ),
        ("top.toml", "extends = \"base.toml\"\n[dataset]\nbuiltin = \"stories\"\n"),
    ]);
    let base = folder.load("base.toml", &[]).expect("loads").experiment.dataset;
    assert_eq!(base.validation.fraction, 0.0, "a separate validation source leaves no fraction to hold out");
    assert_eq!(base.hub.map(|hub| hub.revision).as_deref(), Some("main"));

    let dataset =
        folder.load("top.toml", &["dataset.validation.fraction=0.1"]).expect("loads").experiment.dataset;
    assert!(dataset.builtin.is_some() && dataset.hub.is_none());
    assert_eq!((dataset.validation.fraction, dataset.validation.files), (0.1, None));

    let set = [
        "dataset.source=[{ name = \"a\", files = [\"x.txt\"] }, { name = \"b\", builtin = \"stories\", weight = 2 }]",
    ];
    let resolved = folder.load("top.toml", &set).expect("loads");
    let sources = resolved.experiment.dataset.sources();
    assert_eq!(
        sources.iter().map(|(name, weight, _)| (*name, *weight)).collect::<Vec<_>>(),
        [("a", 1.0), ("b", 2.0)]
    );

    let files =
        folder.load("base.toml", &["dataset.hub.revision=v2"]).expect("tables merge").experiment.dataset;
    assert_eq!(files.hub.map(|hub| (hub.repo, hub.revision)), Some(("a/b".into(), "v2".into())));
}

#[test]
fn paths_start_from_the_file_that_names_them() {
    let folder = Folder::new(&[
        (
            "data/base.toml",
            "[dataset]\nfiles = [\"a/*.txt\", \"../b.txt\", \"/c.txt\"]\ntokenizer = \"t/tokenizer.json\"\n",
        ),
        (
            "top.toml",
            "extends = \"data/base.toml\"\n[dataset.validation]\nfiles = [\"v.txt\"]\n[model]\ninit_from = \"./weights\"\n",
        ),
    ]);
    let resolved = folder.load("top.toml", &[]).expect("loads");
    let path = |name: &str| folder.path(name).display().to_string();
    let dataset = &resolved.experiment.dataset;
    let files = dataset.files.clone().unwrap_or_default();
    assert_eq!(files, [path("data/a/*.txt"), path("b.txt"), "/c.txt".into()]);
    assert_eq!(dataset.tokenizer.path(), Some(PathBuf::from(path("data/t/tokenizer.json"))));
    assert_eq!(dataset.validation.files, Some(vec![path("v.txt")]));
    assert_eq!(resolved.experiment.model.init_from, Some(path("weights")));

    let here = std::env::current_dir().expect("a working directory").canonicalize().expect("it exists");
    let resolved = folder.load("top.toml", &["dataset.files=[\"mine.txt\"]"]).expect("loads");
    assert_eq!(resolved.experiment.dataset.files, Some(vec![here.join("mine.txt").display().to_string()]));
    let hub = folder.load("top.toml", &["model.init_from=openai/gpt-oss-20b"]).expect("loads");
    assert_eq!(hub.experiment.model.init_from.as_deref(), Some("openai/gpt-oss-20b"));
}

#[test]
fn arguments_are_toml_or_bare_words() {
    let folder = Folder::new(&[("e.toml", STORIES)]);
    let set = [
        "run.name=2024",
        "run.notes = two words ",
        "run.labels.\"odd key\"=x",
        "train.precision=bf16",
        "dataset.tokenizer={ train = 300 }",
        "export.checkpoint=500",
        "checkpoint.keep_best=true",
        "model.preset=20b",
        "sample.prompts=[\"a\", \"b\"]",
        "optimizer.weight_decay=0",
    ];
    let experiment = folder.load("e.toml", &set).expect("loads").experiment;
    assert_eq!(experiment.run.name.as_deref(), Some("2024"));
    assert_eq!(experiment.run.notes.as_deref(), Some("two words"));
    assert_eq!(experiment.run.labels["odd key"], "x");
    assert!(matches!(experiment.dataset.tokenizer, TokenizerChoice::Train(train) if train.train == 300));
    assert_eq!(experiment.sample.prompts, ["a", "b"]);
    assert_eq!(experiment.optimizer.weight_decay, 0.0);

    let twice = folder.load("e.toml", &["train.steps=200", "train.steps=300"]).expect("loads");
    assert_eq!(twice.experiment.train.steps, 300, "the later argument wins");
}

#[test]
fn explain_lists_every_key_with_its_value() {
    let folder = Folder::new(&[("e.toml", STORIES)]);
    let resolved = folder.load("e.toml", &["run.labels.\"odd key\"=x"]).expect("loads");
    let lines: Vec<String> = resolved
        .explain()
        .into_iter()
        .map(|line| format!("{} = {} ({})", line.key, line.value.as_deref().unwrap_or("unset"), line.set_by))
        .collect();
    insta::assert_snapshot!(folder.plain(&lines.join("\n")));
}

#[test]
fn unset_resets_a_key_to_its_default() {
    let folder = Folder::new(&[(
        "e.toml",
        "[dataset]\nbuiltin = \"stories\"\n[train]\nsteps = 7\n[schedule]\nwarmup_steps = 1\n",
    )]);
    assert_eq!(folder.unset("e.toml", &["train.steps"], &[]).expect("loads").experiment.train.steps, 1000);
    let both = folder.unset("e.toml", &["train.steps"], &["train.steps=9"]).expect("loads");
    assert_eq!(both.experiment.train.steps, 9, "arguments are stronger");
    assert_eq!(folder.unset("e.toml", &["schedule"], &[]).expect_err("warm-up").problems().len(), 1);
}
