//! A resolved experiment survives a round trip through TOML, and no input makes loading panic.

use std::collections::BTreeMap;

use oss_config::{
    Builtin, CheckpointChoice, Dataset, Experiment, Hub, LayerType, Model, NamedCheckpoint, OnBadRow,
    Optimizer, Overrides, Precision, Preset, Run, Sample, Schedule, ScheduleKind, Source, TokenizerChoice,
    Train, TrainTokenizer, Validation, load,
};
use proptest::prelude::*;

use crate::Folder;

/// Arbitrary text: quotes, newlines, letters of every script.
fn any_text() -> impl Strategy<Value = String> {
    "\\PC{0,12}|[\"'\\\\\n\t=#\\[\\]{}]{0,6}"
}

fn hub() -> impl Strategy<Value = Hub> {
    ("[a-z]{1,5}/[a-z.-]{1,5}[a-z]", "[a-z0-9]{1,6}", prop::collection::vec("[a-z ]{1,5}\\.txt", 1..3))
        .prop_filter("a hub name has no two dots in a row", |(repo, _, _)| !repo.contains(".."))
        .prop_map(|(repo, revision, files)| Hub { repo, revision, files })
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("/[a-z]{1,5}/[a-z *]{1,5}\\.jsonl", 1..3)
}

fn dataset() -> impl Strategy<Value = Dataset> {
    let tokenizer = prop_oneof![
        prop::sample::select(oss_config::TOKENIZERS.to_vec())
            .prop_map(|name| TokenizerChoice::Named(name.into())),
        (257_u32..5000).prop_map(|train| TokenizerChoice::Train(TrainTokenizer { train })),
        Just(TokenizerChoice::Named("/t/tokenizer.json".into())),
        Just(TokenizerChoice::Named("/t".into())),
        Just(TokenizerChoice::Named("o/n@refs/pr/1".into())),
    ];
    let validation = prop_oneof![
        (0.001..0.5).prop_map(|share| Validation { fraction: share, ..Validation::default() }),
        paths().prop_map(|files| Validation { fraction: 0.0, files: Some(files), ..Validation::default() }),
        hub().prop_map(|hub| Validation { fraction: 0.0, hub: Some(hub), ..Validation::default() }),
    ];
    let origin = prop_oneof![
        Just(Dataset { builtin: Some(Builtin::Stories), ..Dataset::default() }),
        paths().prop_map(|files| Dataset { files: Some(files), ..Dataset::default() }),
        hub().prop_map(|hub| Dataset { hub: Some(hub), ..Dataset::default() }),
        (paths(), 0.001..1e6).prop_map(|(files, weight)| {
            let source = |name: &str| Source {
                name: name.into(),
                weight,
                builtin: None,
                files: Some(files.clone()),
                hub: None,
                text_field: Some(format!("{name}.text")),
                separator: None,
            };
            Dataset { source: vec![source("a"), source("b")], ..Dataset::default() }
        }),
    ];
    let on_bad_row = prop::sample::select(vec![OnBadRow::Error, OnBadRow::Skip]);
    let rows = (any::<bool>(), on_bad_row, 0.0..1.0);
    let end_of_text = prop::option::of(Just("<|endoftext|>".to_owned()));
    (origin, (tokenizer, end_of_text), validation, "[a-z ]{1,6}", "[^\n\r]{0,6}", rows).prop_map(
        |(origin, (tokenizer, end_of_text), validation, text_field, separator, rows)| Dataset {
            tokenizer,
            end_of_text,
            validation,
            text_field,
            separator,
            trim: rows.0,
            on_bad_row: rows.1,
            max_bad_fraction: rows.2,
            ..origin
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let presets = prop::sample::select(Preset::ALL.to_vec());
    (presets, prop::option::of(300_i64..300_000), 1e-9..1.0, any::<bool>(), prop::option::of("[a-z]{1,5}"))
        .prop_map(|(preset, vocab_size, initializer_range, lists_layers, init_from)| {
            let shape = preset.model();
            let layers = vec![LayerType::FullAttention; shape.num_hidden_layers as usize];
            Model {
                vocab_size,
                initializer_range,
                init_from,
                layer_types: lists_layers.then_some(layers),
                ..shape
            }
        })
}

fn run() -> impl Strategy<Value = Run> {
    let labels = prop::collection::btree_map(any_text(), any_text(), 0..3);
    ("[a-z][a-z0-9 _.-]{0,8}", 0..=i64::MAX as u64, any::<bool>(), prop::option::of(any_text()), labels)
        .prop_filter("`last` is not a name", |(name, ..)| name != "last")
        .prop_map(|(name, seed, deterministic, notes, labels): (_, _, _, _, BTreeMap<_, _>)| Run {
            name: Some(name),
            seed,
            deterministic,
            notes,
            labels,
        })
}

fn experiment() -> impl Strategy<Value = Experiment> {
    let optimizer = (1e-12..1.0, [0.0..0.999, 0.0..0.999], 0.0..10.0)
        .prop_map(|(lr, betas, weight_decay)| Optimizer { lr, betas, weight_decay, ..Optimizer::default() });
    let schedule = (0_u64..100, prop::option::of(101_u64..500)).prop_map(|(warmup_steps, decay_steps)| {
        Schedule { kind: ScheduleKind::Wsd, warmup_steps, decay_steps, ..Schedule::default() }
    });
    let train = (1000_u64..1 << 40, 1_i64..50, 1_i64..50, prop::option::of(1e-3..1e6)).prop_map(
        |(steps, micro_batch_size, accumulated, max_minutes)| Train {
            steps,
            micro_batch_size,
            global_batch_size: micro_batch_size * accumulated,
            max_minutes,
            precision: Precision::F16,
            device: "cuda:3".into(),
            threads: Some(2),
            ..Train::default()
        },
    );
    let sample = (prop::collection::vec(any_text(), 0..3), prop::option::of(0.01..1.0))
        .prop_map(|(prompts, top_p)| Sample { prompts, top_p, ..Sample::default() });
    (run(), dataset(), model(), optimizer, schedule, train, sample, any::<bool>()).prop_map(
        |(run, dataset, model, optimizer, schedule, train, sample, best)| {
            let mut experiment = Experiment {
                run,
                dataset,
                model,
                optimizer,
                schedule,
                train,
                sample,
                ..Experiment::default()
            };
            if best {
                experiment.checkpoint.keep_best = true;
                experiment.export.checkpoint = CheckpointChoice::Named(NamedCheckpoint::Best);
            } else {
                experiment.export.checkpoint = CheckpointChoice::Step(experiment.train.steps);
            }
            experiment
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_written_experiment_loads_unchanged(experiment in experiment()) {
        let text = experiment.to_toml().expect("every integer fits TOML");
        let loaded = Experiment::from_toml_str("experiment.toml", &text);
        let loaded = loaded.unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        prop_assert_eq!(&loaded, &experiment);
        prop_assert_eq!(loaded.to_toml().expect("still fits"), text);
    }

    #[test]
    fn no_input_panics(text in strange_text(), argument in "\\PC{0,20}|[a-z.]{1,12}=\\PC{0,8}") {
        if let Err(errors) = Experiment::from_toml_str("strange.toml", &text) {
            prop_assert!(!errors.render(true, 110).is_empty());
        }
        let folder = Folder::new(&[("e.toml", &text)]);
        let overrides = Overrides { set: vec![argument.clone()], unset: vec![argument], environment: false };
        if let Err(errors) = load(&folder.path("e.toml"), &overrides) {
            prop_assert!(!errors.problems().is_empty());
            prop_assert!(!errors.render(false, 110).is_empty());
        }
    }
}

/// Lines that are almost TOML, keys that are almost right, and arbitrary text.
fn strange_text() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "dataset",
        "builtin",
        "files",
        "hub",
        "source",
        "validation",
        "tokenizer",
        "model",
        "preset",
        "train",
        "steps",
        "run",
        "labels",
        "\"é\"",
        "layer_types",
        "betas",
        "optimizer",
        "extends",
        "sweep",
        "share",
    ]);
    let value = prop_oneof![
        Just("\"stories\"".to_owned()),
        Just("{ repo = \"é/..\", train = 1 }".to_owned()),
        Just("[1, \"x\", { name = 2 }]".to_owned()),
        Just("-0.5e300".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("\"\"\"\n\r\n é\"\"\"".to_owned()),
        "\\PC{0,6}",
    ];
    let line = prop_oneof![
        (key.clone(), value).prop_map(|(key, value)| format!("{key} = {value}\n")),
        (key.clone(), key.clone()).prop_map(|(outer, inner)| format!("[{outer}.{inner}]\r\n")),
        key.clone().prop_map(|key| format!("[{key}]\n")),
        key.prop_map(|key| format!("[[dataset.{key}]]\n")),
        "\\PC{0,10}\n",
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}
