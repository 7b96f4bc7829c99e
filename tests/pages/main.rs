//! Checks that files generated from the types are up to date, and that the names on the other pages exist.
//!
//! `OSS_RUN_BLESS=1 cargo test --test pages` regenerates the generated ones.

mod names;

use std::{env, fs, path::Path};

use oss_config::{Overrides, Strategy, load, reference, schema};

fn assert_current(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if env::var_os("OSS_RUN_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("has a parent")).expect("can be created");
        fs::write(&path, generated).expect("can be written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == generated,
        "{name} is out of date; regenerate it with \
         `OSS_RUN_BLESS=1 cargo test --test pages`"
    );
}

#[test]
fn the_schema_for_editors_is_current() {
    let schema = serde_json::to_string_pretty(&schema()).expect("the schema serializes");
    assert_current("experiments/schema.json", &format!("{schema}\n"));
}

#[test]
fn the_reference_page_is_current() {
    assert_current("docs/experiment.md", &reference());
}

#[test]
fn the_staleness_page_is_current() {
    assert_current("docs/staleness.md", &oss_run::plan::invalidation_docs::page());
}

#[test]
fn every_shipped_experiment_loads_without_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let mut count = 0;
    let listed =
        [("", "schema.json"), ("sweeps", "../schema.json")].into_iter().flat_map(|(inner, schema)| {
            let entries = fs::read_dir(folder.join(inner)).expect("the repository contains experiments");
            entries.map(move |entry| (entry.expect("a readable entry").path(), schema))
        });
    for (path, schema) in listed {
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with(&format!("#:schema {schema}\n")), "{} has no schema", path.display());
        let resolved = load(&path, &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(resolved.warnings.is_empty(), "{:?}", resolved.warnings);
        count += 1;
    }
    assert!(count >= 7);
}

#[test]
fn the_20b_experiment_is_the_original_five_gpu_run() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/20b_tinystories.toml");
    let experiment =
        load(&path, &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}")).experiment;
    let (optimizer, schedule, train) = (&experiment.optimizer, &experiment.schedule, &experiment.train);
    assert_eq!((optimizer.lr, optimizer.betas, optimizer.weight_decay), (3e-4, [0.9, 0.95], 0.1));
    assert_eq!((schedule.warmup_steps, schedule.decay_steps, schedule.min_lr_ratio), (100, None, 0.1));
    assert_eq!((train.steps, train.global_batch_size, train.micro_batch_size), (5000, 40, 1));
    assert_eq!(train.sequence_length, 512);
    assert_eq!((experiment.sharding.strategy, experiment.sharding.ranks), (Strategy::Fsdp, 5));
    assert_eq!((experiment.evaluate.every_steps, experiment.sample.every_steps), (100, 100));
    assert_eq!(experiment.checkpoint.every_steps, 500);
}
