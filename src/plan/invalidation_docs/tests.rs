//! Changes every key once, and checks that exactly the stages in the table get new keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::plan::hub_pins::Pins;
use crate::plan::identity::TrainingFingerprint;
use crate::plan::keys::{self, Key, KeyInputs};
use crate::plan::{Inputs, NetworkAccess, complete};
use oss_config::{CheckpointChoice, Experiment, Hub, NamedCheckpoint, Overrides, load};
use oss_data::sources::{Identity, Watch};
use oss_runs::run_dir::RunsDir;

/// Common settings, then the values before and after.
type Change = (Vec<String>, String, String);

/// Texts, pinned weights, and an experiment that uses them.
struct Project {
    dir: tempfile::TempDir,
    runs: RunsDir,
}

impl Project {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path().join("runs"));
        for name in ["a", "b"] {
            fs::write(dir.path().join(format!("{name}.txt")), format!("The text {name}.\n")).unwrap();
        }
        let mut pins = Pins::open(&runs);
        for name in ["a", "b"] {
            let files =
                ["config.json", "*.safetensors", "*.safetensors.index.json"].map(str::to_owned).to_vec();
            let hub = Hub { repo: format!("model o/{name}"), revision: "main".into(), files };
            let (repo, commit) = (format!("o/{name}"), "0".repeat(40));
            pins.set(&hub, Identity::Hub { repo, commit, files: vec!["config.json".into()] });
        }
        pins.save().unwrap();
        Self { dir, runs }
    }

    /// The experiment with these settings, and its inputs.
    fn experiment(&self, set: &[String]) -> (Experiment, Inputs) {
        let file = self.dir.path().join("e.toml");
        fs::write(&file, "").unwrap();
        let overrides = Overrides { set: set.to_vec(), ..Overrides::default() };
        let resolved = load(&file, &overrides).unwrap_or_else(|errors| panic!("{set:?}: {errors}"));
        let local = NetworkAccess::Local(Watch::quiet());
        let experiment = complete(&resolved, &self.runs, local).unwrap().experiment;
        let found = Inputs::find(&experiment, &self.runs, local).unwrap();
        (experiment, found.expect("everything is known without the hub"))
    }

    /// The key that run ids are derived from.
    fn trajectory(&self, set: &[String]) -> Key {
        let (experiment, inputs) = self.experiment(set);
        TrainingFingerprint { experiment: &experiment, inputs: &inputs }.key_inputs().unwrap().key()
    }

    /// The key of each stage. Weights are represented by what determines them.
    fn keys(&self, set: &[String]) -> BTreeMap<Stage, String> {
        let (experiment, inputs) = self.experiment(set);
        let sources = inputs.prepared_sources(&experiment).unwrap();
        let own = inputs.prepared_validation(&experiment).unwrap();
        let prepared: Vec<String> = sources.iter().chain(&own).map(|source| source.key().0).collect();
        let trajectory =
            TrainingFingerprint { experiment: &experiment, inputs: &inputs }.key_inputs().unwrap();
        let target = keys::target(&experiment, &trajectory).key().0;
        let validation: Vec<_> = match &own {
            Some(own) => vec![own.content()],
            None => sources.iter().map(KeyInputs::content).collect(),
        };
        let exported = match experiment.export.checkpoint {
            CheckpointChoice::Named(NamedCheckpoint::Last) => target.clone(),
            other => format!("{target} {other:?}"),
        };
        BTreeMap::from([
            (Stage::Prepare, prepared.join(" ")),
            (Stage::Evaluate, keys::evaluate(&experiment, &target, &validation).key().0),
            (Stage::Sample, keys::sample(&experiment, &target).key().0),
            (Stage::Export, keys::export(&experiment, &exported, &inputs.tokenizer).key().0),
            (Stage::Train, target),
        ])
    }

    fn text(&self, name: &str) -> String {
        format!("[\"{}\"]", self.dir.path().join(format!("{name}.txt")).display())
    }

    /// How to change the value of `key`.
    fn change(&self, key: &str) -> Change {
        let own = |context: &[&str], before: &str, after: &str| -> Change {
            (context.iter().map(|set| (*set).to_owned()).collect(), before.to_owned(), after.to_owned())
        };
        let (a, b) = (self.text("a"), self.text("b"));
        let hub = |digit: &str| {
            format!("{{ repo = \"o/d\", revision = \"{}\", files = [\"x.txt\"] }}", digit.repeat(40))
        };
        let mix = |files: &str| {
            format!("[{{ name = \"one\", builtin = \"stories\" }}, {{ name = \"two\", files = {files} }}]")
        };
        match key {
            // There is only one built-in corpus, so a change needs another kind of source.
            "dataset.builtin" | "dataset.validation.builtin" => own(&[], "stories", &format!("files:{a}")),
            "dataset.files" | "dataset.validation.files" => own(&[], &a, &b),
            "dataset.hub" | "dataset.validation.hub" => own(&[], &hub("1"), &hub("2")),
            "dataset.source" => own(&[], &mix(&a), &mix(&b)),
            "dataset.text_field" => own(&[], "text", "story"),
            "dataset.separator" => own(&[], "cut", "here"),
            "dataset.validation.text_field" => own(&["dataset.validation.builtin=stories"], "text", "story"),
            "dataset.validation.separator" => own(&["dataset.validation.builtin=stories"], "cut", "here"),
            "dataset.tokenizer" => own(&[], "bytes", "{ train = 300 }"),
            "dataset.end_of_text" => own(&[], "<|endoftext|>", "<|return|>"),
            "model.preset" => own(&[], "20b", "120b"),
            "model.init_from" => own(&[], "o/a", "o/b"),
            "model.vocab_size" => own(&[], "300", "400"),
            "model.layer_types" => {
                let two = "model.num_hidden_layers=2";
                own(
                    &[two],
                    "[\"full_attention\", \"full_attention\"]",
                    "[\"full_attention\", \"sliding_attention\"]",
                )
            }
            "model.num_experts_per_tok" => own(&[], "4", "5"),
            "optimizer.momentum" => own(&["optimizer.kind=muon"], "0.9", "0.8"),
            "optimizer.betas" => own(&[], "[0.9, 0.95]", "[0.9, 0.99]"),
            "optimizer.max_grad_norm" => own(&[], "2.0", "3.0"),
            "schedule.decay_steps" => own(&["schedule.kind=wsd"], "10", "20"),
            "train.steps" => own(&["schedule.kind=constant"], "1000", "2000"),
            "train.epochs" => own(&[], "1", "2"),
            "evaluate.patience" => own(&[], "3", "4"),
            "train.param_dtype" => own(&["train.precision=bf16"], "f32", "bf16"),
            "train.router_aux_loss_coef" => own(&[], "0.2", "0.3"),
            "train.max_minutes" => own(&[], "1", "2"),
            "train.device" => own(&[], "cpu", "cuda"),
            "train.threads" => own(&[], "1", "2"),
            "train.micro_batch_size" => own(&["train.global_batch_size=8"], "1", "2"),
            "sharding.ranks" => own(&["sharding.strategy=fsdp"], "1", "2"),
            "sharding.shard_degree" => own(&["sharding.strategy=hsdp", "sharding.ranks=4"], "2", "4"),
            "run.name" => own(&[], "one", "two"),
            "run.notes" => own(&[], "one", "two"),
            "run.labels" => own(&[], "{ a = \"1\" }", "{ a = \"2\" }"),
            "evaluate.max_tokens" => own(&[], "100", "200"),
            "log.hparams" => own(&[], "[\"optimizer.lr\"]", "[\"train.steps\"]"),
            "sample.prompts" => own(&[], "[\"One\"]", "[\"Two\"]"),
            "sample.stop" => own(&[], "[\".\"]", "[\"!\"]"),
            "sample.top_k" => own(&[], "10", "20"),
            "sample.top_p" => own(&[], "0.5", "0.6"),
            "export.checkpoint" => own(&[], "last", "500"),
            "export.max_shard_size" => own(&[], "1GB", "2GB"),
            "checkpoint.keep_every" => own(&[], "100", "200"),
            _ => {
                let (before, after) = other_value(key);
                own(&[], &before, &after)
            }
        }
    }

    /// The settings before and after a change.
    fn sides(&self, key: &str) -> [Vec<String>; 2] {
        let (context, before, after) = self.change(key);
        [before, after].map(|value| {
            let mut set = context.clone();
            if !key.starts_with("dataset.") || key.contains("validation") {
                set.push("dataset.builtin=stories".to_owned());
            } else if [
                "text_field",
                "separator",
                "trim",
                "bad_row",
                "bad_fraction",
                "tokenizer",
                "end_of_text",
            ]
            .iter()
            .any(|name| key.ends_with(name))
            {
                set.push(format!("dataset.files={}", self.text("a")));
            }
            // The default tokenizer has several tokens that can end a text.
            if !["dataset.tokenizer", "dataset.end_of_text"].contains(&key) {
                set.push("dataset.tokenizer=bytes".to_owned());
            }
            match value.strip_prefix("files:") {
                Some(files) => set.push(format!("{}={files}", key.replace("builtin", "files"))),
                None => set.push(format!("{key}={value}")),
            }
            set
        })
    }
}

/// The default of a key and a different value: another word, a larger number, the opposite boolean.
fn other_value(key: &str) -> (String, String) {
    let default =
        keys::default_values().get(key).unwrap_or_else(|| panic!("add a case for {key} to `change`"));
    let other = match default {
        Value::Bool(value) => json!(!value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => json!(2 * number.max(1)),
            None => json!(number.as_f64().unwrap() / 2.0),
        },
        Value::String(word) => json!(
            words(key)
                .into_iter()
                .find(|other| other != word)
                .unwrap_or_else(|| panic!("no other value for {key}"))
        ),
        other => panic!("add a case for {key} to `change`; its default is {other}"),
    };
    (default.to_string(), other.to_string())
}

/// The values of an enum.
fn words(key: &str) -> Vec<String> {
    fn collect(node: &Value, root: &Value, words: &mut Vec<String>) {
        if let Some(target) = node["$ref"].as_str() {
            return collect(root.pointer(&target[1..]).unwrap(), root, words);
        }
        words.extend(node["const"].as_str().map(str::to_owned));
        let listed = node["enum"].as_array().into_iter().flatten();
        words.extend(listed.filter_map(Value::as_str).map(str::to_owned));
        for inner in ["allOf", "anyOf", "oneOf"] {
            node[inner].as_array().into_iter().flatten().for_each(|node| collect(node, root, words));
        }
    }
    fn property<'a>(node: &'a Value, root: &'a Value, name: &str) -> &'a Value {
        let node = node["allOf"].get(0).unwrap_or(node);
        let node = node["$ref"].as_str().map_or(node, |target| root.pointer(&target[1..]).unwrap());
        &node["properties"][name]
    }
    let root = oss_config::schema();
    let node = key.split('.').fold(&root, |node, name| property(node, &root, name));
    let mut words = Vec::new();
    collect(node, &root, &mut words);
    words
}

#[test]
fn a_changed_value_changes_exactly_the_keys_in_the_table() {
    let project = Project::new();
    // A key with a single possible value cannot be changed.
    assert_eq!(words("export.format"), ["hf"]);
    for (key, role) in TABLE.iter().filter(|(key, _)| *key != "export.format") {
        let [before, after] = project.sides(key);
        let (old, new) = (project.keys(&before), project.keys(&after));
        let moved: BTreeSet<Stage> =
            Stage::ALL.into_iter().filter(|stage| old[stage] != new[stage]).collect();
        let named: BTreeSet<Stage> = match *key {
            // Its fields are in the table.
            "model.preset" => reached(Part::TrainingFingerprint).iter().copied().collect(),
            _ => stale_stages(*role).into_iter().collect(),
        };
        assert_eq!(moved, named, "{key}: {before:?} -> {after:?}");
    }
}

#[test]
fn steps_that_end_a_decay_make_another_run() {
    let project = Project::new();
    let run = |kind: &str, steps: u64| {
        let set = ["dataset.builtin=stories", "dataset.tokenizer=bytes"].map(str::to_owned);
        let schedule = [format!("schedule.kind={kind}"), format!("train.steps={steps}")];
        project.trajectory(&[set, schedule].concat())
    };
    assert_ne!(run("cosine", 1000), run("cosine", 2000));
    assert_eq!(run("constant", 1000), run("constant", 2000));
}

#[test]
fn writing_out_a_default_changes_no_key() {
    let project = Project::new();
    let base = ["dataset.builtin=stories".to_owned(), "dataset.tokenizer=bytes".to_owned()];
    let plain = project.keys(&base);
    let is_plain = |value: &Value| !matches!(value, Value::Object(_) | Value::Array(_));
    for (key, value) in keys::default_values().iter().filter(|(_, value)| is_plain(value)) {
        if key != "dataset.tokenizer" {
            let written = project.keys(&[base.as_slice(), &[format!("{key}={value}")]].concat());
            assert_eq!(plain, written, "{key} = {value}");
        }
    }
}

#[test]
fn the_page_has_every_key() {
    let page = page();
    for (key, _) in TABLE {
        let name = key.split_once('.').unwrap().1;
        assert!(page.contains(&format!("| `{name}`")), "{key}");
    }
    assert!(page.contains("| `steps` | this run, continued |  | rerun | rerun | rerun | rerun |"), "{page}");
    assert!(page.contains("| `device` | nothing |  |  |  |  |  |"), "{page}");
}
