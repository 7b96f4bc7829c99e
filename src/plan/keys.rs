//! Keys of the stages: hashes of resolved values, input digests and the stage's version.
//!
//! A value equal to its default is not hashed, so adding a key with a default to the experiment file does not change
//! the id of any run. Derived values are resolved first: an unset end of a cosine schedule becomes `train.steps`, so
//! the trajectory depends on the number of steps exactly where the learning rate does.
//!
//! A trajectory includes its sources by what is known before they are prepared (content digests, tokenizer, split,
//! separator), without the version of prepare. The same text split the same way is the same trajectory, and a new
//! version of prepare regenerates the tokens without retraining. The train stage records the digests of the tokens
//! themselves and refuses to resume with different tokens.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::table::{Part, Role, role};
use oss_config::{Experiment, LayerType, Optimizer, ScheduleKind, TextKeys};
use oss_runs::run_dir::Stage;

/// A BLAKE3 hash in lowercase hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

/// Hexadecimal digits of a run id.
const RUN_ID_DIGITS: usize = 10;

impl Key {
    /// The first digits, as used in run ids.
    pub fn short(&self) -> &str {
        self.0.get(..RUN_ID_DIGITS).unwrap_or(&self.0)
    }
}

/// Everything that goes into a key; stored in the manifest, so that a stale stage can report what changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyInputs {
    /// Resolved values that differ from the defaults, by their path in the experiment file.
    pub values: BTreeMap<String, Value>,
    /// Digests of inputs, by name (`weights`, `source 0`).
    pub digests: BTreeMap<String, String>,
    /// The stage's version.
    pub version: u32,
}

impl KeyInputs {
    /// The stage's key.
    pub fn key(&self) -> Key {
        hash(&json!({ "values": self.values, "digests": self.digests, "version": self.version }))
    }

    /// The key of the stage's inputs, without its version.
    pub fn content(&self) -> Key {
        hash(&json!({ "values": self.values, "digests": self.digests }))
    }
}

/// Hashes canonical JSON: sorted keys, no whitespace, shortest round-trip numbers.
pub(super) fn hash(document: &Value) -> Key {
    Key(blake3::hash(canonical(document).to_string().as_bytes()).to_hex().to_string())
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            Value::Object(sorted.into_iter().map(|(k, v)| (k.clone(), canonical(v))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// One prepared source: its content, how it is split into documents and tokenized, and how much is held out.
///
/// `text` says where the documents are in it; `content` is a digest of the text (or a hub commit with its files);
/// `tokenizer` is the tokenizer's identity from [`super::inputs`]. A separate validation source is not split.
pub fn prepare(
    experiment: &Experiment,
    text: TextKeys<'_>,
    content: &str,
    tokenizer: &str,
    validation_only: bool,
) -> KeyInputs {
    let mut inputs =
        part(experiment, Stage::Prepare, if validation_only { Part::Validation } else { Part::Prepare });
    // A source's own field and separator replace those of the dataset.
    for (name, value) in [("text_field", text.text_field), ("separator", text.separator)] {
        let key = format!("dataset.{name}");
        inputs.values.remove(&format!("dataset.validation.{name}"));
        match default_values().get(&key).is_some_and(|default| default == value) {
            true => drop(inputs.values.remove(&key)),
            false => drop(inputs.values.insert(key, json!(value))),
        }
    }
    if experiment.dataset.validation.origin().is_some() {
        // Nothing is held out of the training text if validation has its own source.
        inputs.values.insert("dataset.validation.fraction".to_owned(), json!(0.0));
    }
    if validation_only {
        inputs.values.insert("dataset.validation.fraction".to_owned(), json!(1.0));
    }
    inputs.digests.insert("content".to_owned(), content.to_owned());
    inputs.digests.insert("tokenizer".to_owned(), tokenizer.to_owned());
    inputs
}

/// The trajectory of the weights. `sources` are the prepared sources in order with their mixing weights, `init` is the
/// digest of the initial weights if not random, `vocab_size` is the model's (the tokenizer's unless set).
pub fn trajectory(
    experiment: &Experiment,
    sources: &[(f64, &KeyInputs)],
    init: Option<&str>,
    vocab_size: i64,
) -> KeyInputs {
    let mut inputs = part(experiment, Stage::Train, Part::TrainingFingerprint);
    inputs.values.insert("model.vocab_size".to_owned(), json!(vocab_size));
    for (index, (_, source)) in sources.iter().enumerate() {
        inputs.digests.insert(format!("source {index}"), source.content().0);
    }
    if sources.len() > 1 {
        let weights: Vec<f64> = sources.iter().map(|(weight, _)| *weight).collect();
        inputs.values.insert("dataset.source.weight".to_owned(), json!(weights));
    }
    if let Some(digest) = init {
        inputs.digests.insert("model.init_from".to_owned(), digest.to_owned());
    }
    inputs
}

/// A trajectory up to `train.steps`, or until `evaluate.patience` is exhausted.
pub fn target(experiment: &Experiment, trajectory: &KeyInputs) -> KeyInputs {
    let mut inputs = trajectory.clone();
    inputs.values.extend(part(experiment, Stage::Train, Part::Target).values);
    inputs.values.insert("train.steps".to_owned(), json!(experiment.train.steps));
    inputs
}

/// The validation loss of the given weights on the given tokens (their content keys, in order).
pub fn evaluate(experiment: &Experiment, weights: &str, validation: &[Key]) -> KeyInputs {
    let mut inputs = part(experiment, Stage::Evaluate, Part::Evaluate);
    inputs.digests.insert("weights".to_owned(), weights.to_owned());
    for (index, tokens) in validation.iter().enumerate() {
        let name = match validation {
            [_] => "validation tokens".to_owned(),
            _ => format!("validation tokens {index}"),
        };
        inputs.digests.insert(name, tokens.0.clone());
    }
    inputs
}

/// Samples from the given weights.
pub fn sample(experiment: &Experiment, weights: &str) -> KeyInputs {
    let mut inputs = part(experiment, Stage::Sample, Part::Sample);
    inputs.digests.insert("weights".to_owned(), weights.to_owned());
    inputs
}

/// The export of the given weights.
pub fn export(experiment: &Experiment, weights: &str, tokenizer: &str) -> KeyInputs {
    let mut inputs = part(experiment, Stage::Export, Part::Export);
    inputs.digests.insert("weights".to_owned(), weights.to_owned());
    inputs.digests.insert("tokenizer".to_owned(), tokenizer.to_owned());
    inputs
}

/// The non-default values that enter one part.
fn part(experiment: &Experiment, stage: Stage, part: Part) -> KeyInputs {
    let defaults = default_values();
    let values = resolved_values(experiment)
        .into_iter()
        .filter(|(key, _)| matches!(role(key), Some(Role::Value(parts)) if parts.contains(&part)))
        .filter(|(key, value)| defaults.get(key) != Some(value))
        .collect();
    KeyInputs { values, digests: BTreeMap::new(), version: stage.version() }
}

/// The value of each key of the experiment file, with derived values filled in. Keys that have no effect (such as the
/// decay end of a constant schedule) are left out.
pub fn resolved_values(experiment: &Experiment) -> BTreeMap<String, Value> {
    let mut values = written_values(experiment);
    let mut set = |key: &str, value: Option<Value>| match value {
        Some(value) => drop(values.insert(key.to_owned(), value)),
        None => drop(values.remove(key)),
    };
    let schedule = &experiment.schedule;
    match schedule.kind {
        ScheduleKind::Constant => {
            set("schedule.decay_steps", None);
            set("schedule.min_lr_ratio", None);
        }
        ScheduleKind::Cosine | ScheduleKind::Linear => {
            set("schedule.decay_steps", Some(json!(schedule.decay_steps.unwrap_or(experiment.train.steps))));
        }
        // An unset decay depends on the target, not the trajectory: a raised target resumes from before the decay.
        ScheduleKind::Wsd => {}
    }
    // An unset norm means 1, or none with updates in the backward pass; either way, the default.
    let unset = Optimizer { max_grad_norm: None, momentum: None, ..experiment.optimizer.clone() };
    if experiment.optimizer.clip_norm() == unset.clip_norm() {
        set("optimizer.max_grad_norm", None);
    }
    if experiment.optimizer.momentum() == unset.momentum() {
        set("optimizer.momentum", None);
    }
    let from_scratch = experiment.model.init_from.is_none();
    set("train.router_aux_loss_coef", Some(json!(experiment.train.router_aux_loss_coef(from_scratch))));
    let model = &experiment.model;
    let alternating = |types: &Vec<LayerType>| {
        let mut kinds = [LayerType::SlidingAttention, LayerType::FullAttention].into_iter().cycle();
        types.iter().all(|kind| Some(*kind) == kinds.next())
    };
    if model.layer_types.as_ref().is_some_and(alternating) {
        set("model.layer_types", None);
    }
    values
}

/// The values of an empty experiment file.
pub fn default_values() -> &'static BTreeMap<String, Value> {
    static DEFAULTS: LazyLock<BTreeMap<String, Value>> =
        LazyLock::new(|| written_values(&Experiment::default()));
    &DEFAULTS
}

/// Every value of an experiment stored in a manifest, by path; keys that it lacks have their defaults.
pub fn all_values(document: Value) -> BTreeMap<String, Value> {
    let mut values = default_values().clone();
    values.extend(by_key(document));
    values
}

/// The experiment's fields by path, one entry per set row of the table.
fn written_values(experiment: &Experiment) -> BTreeMap<String, Value> {
    // Plain data always serializes to JSON; if it did not, every key would be empty and tests would fail.
    by_key(serde_json::to_value(experiment).unwrap_or_default())
}

/// The values of an experiment stored in a manifest, by path, one entry per set row of the table. Keys that are not in
/// the table, written by another version, get entries too: one for each value that is not a table.
pub fn by_key(document: Value) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    flatten("", document, &mut values);
    values
}

fn flatten(path: &str, value: Value, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) if role(path).is_none() => {
            for (name, field) in fields {
                let child = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(&child, field, values);
            }
        }
        leaf => drop(values.insert(path.to_owned(), leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::{Builtin, Preset, Schedule};

    fn experiment() -> Experiment {
        let mut experiment = Experiment { model: Preset::Tiny.model(), ..Experiment::default() };
        experiment.dataset.builtin = Some(Builtin::Stories);
        experiment
    }

    fn prepared(experiment: &Experiment, content: &str, validation_only: bool) -> KeyInputs {
        let text = experiment.dataset.source_text_keys("main");
        prepare(experiment, text, content, "bytes", validation_only)
    }

    fn trajectory_key(experiment: &Experiment) -> Key {
        let source = prepared(experiment, "text", false);
        trajectory(experiment, &[(1.0, &source)], None, 257).key()
    }

    fn scheduled(kind: ScheduleKind, steps: u64, decay_steps: Option<u64>) -> Experiment {
        let mut experiment = experiment();
        experiment.schedule = Schedule { kind, decay_steps, ..Schedule::default() };
        experiment.train.steps = steps;
        experiment
    }

    #[test]
    fn defaults_stay_out_of_the_key() {
        let inputs = sample(&Experiment::default(), "w");
        assert_eq!(inputs.values, BTreeMap::new());
        let source = prepared(&Experiment::default(), "text", false);
        let inputs = trajectory(&Experiment::default(), &[(1.0, &source)], None, 257);
        // Only derived values are always present.
        let keys: Vec<&str> = inputs.values.keys().map(String::as_str).collect();
        assert_eq!(keys, ["model.vocab_size", "schedule.decay_steps", "train.router_aux_loss_coef"]);
    }

    #[test]
    fn recorded_values_change_no_key() {
        let mut other = experiment();
        other.train.device = "cuda".to_owned();
        other.train.micro_batch_size = 8;
        other.sharding.ranks = 4;
        other.checkpoint.every_steps = 7;
        other.run.notes = Some("a note".to_owned());
        other.evaluate.every_steps = 3;
        other.sample.every_steps = 3;
        assert_eq!(trajectory_key(&experiment()), trajectory_key(&other));
        assert_eq!(sample(&experiment(), "w").key(), sample(&other, "w").key());
        assert_eq!(evaluate(&experiment(), "w", &[]).key(), evaluate(&other, "w", &[]).key());
        assert_eq!(export(&experiment(), "w", "t").key(), export(&other, "w", "t").key());
    }

    #[test]
    fn a_preset_stands_for_its_fields() {
        let mut named = experiment();
        named.model.preset = Some(Preset::Tiny);
        assert_eq!(trajectory_key(&named), trajectory_key(&experiment()));
    }

    #[test]
    fn steps_enter_the_trajectory_where_the_learning_rate_depends_on_them() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Wsd] {
            let (short, long) = (scheduled(kind, 100, None), scheduled(kind, 200, None));
            assert_eq!(trajectory_key(&short), trajectory_key(&long), "{kind:?}");
        }
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear] {
            let (short, long) = (scheduled(kind, 100, None), scheduled(kind, 200, None));
            assert_ne!(trajectory_key(&short), trajectory_key(&long), "{kind:?}");
            let fixed = scheduled(kind, 200, Some(100));
            assert_eq!(
                trajectory_key(&short),
                trajectory_key(&fixed),
                "{kind:?}: the derived end of the decay, set explicitly"
            );
        }
        let (short, long) =
            (scheduled(ScheduleKind::Wsd, 100, Some(10)), scheduled(ScheduleKind::Wsd, 100, Some(20)));
        assert_ne!(trajectory_key(&short), trajectory_key(&long));
    }

    #[test]
    fn targets_differ_where_steps_do() {
        let source = prepared(&experiment(), "text", false);
        let key = |steps| {
            let experiment = scheduled(ScheduleKind::Constant, steps, None);
            target(&experiment, &trajectory(&experiment, &[(1.0, &source)], None, 257)).key()
        };
        assert_ne!(key(100), key(200));
    }

    #[test]
    fn later_stages_depend_only_on_their_own_values() {
        let mut other = experiment();
        other.export.dtype = oss_config::ExportDtype::F32;
        assert_eq!(sample(&experiment(), "w").key(), sample(&other, "w").key());
        assert_ne!(export(&experiment(), "w", "t").key(), export(&other, "w", "t").key());
        other.evaluate.max_tokens = Some(5);
        assert_ne!(evaluate(&experiment(), "w", &[]).key(), evaluate(&other, "w", &[]).key());
        assert_eq!(trajectory_key(&experiment()), trajectory_key(&other));
    }

    #[test]
    fn a_new_version_of_prepare_keeps_every_run_id() {
        let mut source = prepared(&experiment(), "text", false);
        let before = (source.key(), trajectory(&experiment(), &[(1.0, &source)], None, 257).key());
        source.version += 1;
        assert_ne!(source.key(), before.0);
        assert_eq!(trajectory(&experiment(), &[(1.0, &source)], None, 257).key(), before.1);
    }

    #[test]
    fn the_split_is_resolved() {
        let mut own = experiment();
        own.dataset.validation.builtin = Some(Builtin::Stories);
        own.dataset.validation.fraction = 0.2;
        let mut other = own.clone();
        other.dataset.validation.fraction = 0.1;
        assert_eq!(prepared(&own, "a", false).key(), prepared(&other, "a", false).key());
        assert_ne!(prepared(&own, "a", false).key(), prepared(&own, "a", true).key());
    }

    #[test]
    fn a_source_of_its_own_field_has_the_key_of_that_field() {
        let mut other = experiment();
        other.dataset.text_field = "body".to_owned();
        let body = TextKeys { text_field: "body", separator: "<|endoftext|>" };
        let own = prepare(&experiment(), body, "text", "bytes", false);
        assert_eq!(own.key(), prepared(&other, "text", false).key());
        let default = experiment().dataset.separator;
        let text = TextKeys { text_field: "text", separator: &default };
        assert_eq!(
            prepare(&other, text, "text", "bytes", false).key(),
            prepared(&experiment(), "text", false).key()
        );
    }

    #[test]
    fn keys_are_stable() {
        // A change here orphans every existing run, so it must be intentional.
        insta::assert_snapshot!(trajectory_key(&experiment()).0, @"c77dd14f9476cf32de76604f252c8f2b839fed484fb485d9dc9f45973bd9dae2");
    }
}
