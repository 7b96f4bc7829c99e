//! Warnings about plans that are valid but probably not what was intended.
//!
//! They are few, and silent for sound experiments: a warning that is always there is never read. Mistakes that show in
//! the file itself are reported when it is loaded; the warnings here need parameter counts, token counts and
//! throughput.

use serde::Serialize;

use super::estimate::Estimate;
use super::overlap::{FIX, Overlap};
use oss_config::Experiment;
use oss_train::optimizer::{ParamGroup, update_rule};

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The key most likely to need a change.
    pub key: &'static str,
    /// The problem.
    pub message: String,
    /// The suggested fix.
    pub fix: String,
}

/// What is known in addition to the experiment.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Training tokens of each source, once they are prepared; otherwise empty.
    pub sources: Vec<SourceTokens>,
    /// Validation text that is also training text.
    pub overlap: Option<Overlap>,
    /// Validation tokens, once they are prepared.
    pub validation_tokens: Option<u64>,
    /// Tokens per second, once measured.
    pub tokens_per_second: Option<f64>,
    /// `evaluate.every_steps` was set explicitly.
    pub evaluates_on_purpose: bool,
    /// `sample.every_steps` was set explicitly.
    pub samples_on_purpose: bool,
}

/// Tokens of a training source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceTokens {
    /// Its name.
    pub name: String,
    /// Fraction of the training sequences that are drawn from it.
    pub share: f64,
    /// Number of tokens.
    pub tokens: u64,
}

impl SourceTokens {
    /// Number of times that training on `trained` tokens of all sources reads this one.
    pub fn epochs(&self, trained: u64) -> f64 {
        trained as f64 * self.share / self.tokens.max(1) as f64
    }
}

/// A longer warmup leaves little of the run at the full learning rate.
const LONG_WARMUP: f64 = 0.5;

/// Number of epochs beyond which repeated data has little value (arXiv:2305.16264).
const USEFUL_EPOCHS: f64 = 4.0;

/// Approximate standard deviation of the loss of one token in nats, for any model.
const LOSS_DEVIATION: f64 = 2.5;

/// With a larger standard error, validation losses are of no use for comparing runs.
const WANTED_ERROR: f64 = 0.03;

/// Too much work to lose in a crash.
const LONG_SECS: f64 = 2.0 * 3600.0;

/// The fits cover 1e17 to 2e19 FLOPs; below this, usual values hardly change.
const MIN_FITTED: f64 = 1e15;

/// Runs below this many FLOPs are toys and get no advice.
const TOY: f64 = 1e12;

/// Accepted range of the ratio to the fits below.
const FAR_LR: (f64, f64) = (1.0 / 30.0, 5.0);
const FAR_BATCH: (f64, f64) = (1.0 / 60.0, 30.0);

/// The warnings for `experiment`, most serious first.
pub fn advice(experiment: &Experiment, estimate: &Estimate, known: &Known) -> Vec<Advice> {
    let mut all = Vec::new();
    rates(experiment, estimate, &mut all);
    lengths(experiment, known, &mut all);
    validation(experiment, estimate, known, &mut all);
    overlap(known, &mut all);
    epochs(estimate, known, &mut all);
    checkpoints(experiment, estimate, known, &mut all);
    all
}

/// Tokens per step of pretraining runs of a compute budget C in FLOPs: 0.292 C^0.3271 (DeepSeek LLM, arXiv:2401.02954,
/// section 3.1).
fn usual_batch(flops: f64) -> f64 {
    0.292 * flops.powf(0.3271)
}

fn rates(experiment: &Experiment, estimate: &Estimate, all: &mut Vec<Advice>) {
    let Experiment { optimizer, model, train, .. } = experiment;
    // The fits do not apply to fine-tuning.
    if model.init_from.is_some() || estimate.flops < TOY {
        return;
    }
    let flops = estimate.flops.max(MIN_FITTED);
    let rule = update_rule(optimizer.kind, ParamGroup::BlockMatrices);
    let is_far = |lr: &f64| !(FAR_LR.0..=FAR_LR.1).contains(&(optimizer.lr / lr));
    if let Some(lr) = rule.usual_lr(flops).filter(is_far) {
        let side = if optimizer.lr > lr { "above" } else { "below" };
        all.push(Advice {
            key: "optimizer.lr",
            message: format!(
                "a peak learning rate of {} is far {side} the usual value for a run of this size",
                optimizer.lr
            ),
            fix: format!("about {lr:.0e} is usual for {} and {:.0e} FLOPs", rule.name(), estimate.flops),
        });
    }
    let batch = usual_batch(flops);
    let ratio = estimate.tokens_per_step as f64 / batch;
    // A batch cannot be smaller than one sequence.
    if !(FAR_BATCH.0..=FAR_BATCH.1).contains(&ratio) && (ratio > 1.0 || train.global_batch_size > 1) {
        let side = if ratio > 1.0 { "large" } else { "small" };
        all.push(Advice {
            key: "train.global_batch_size",
            message: format!(
                "a batch of {} tokens per step is {side} for a run of this size",
                estimate.tokens_per_step
            ),
            fix: format!("about {batch:.0e} tokens are usual for {:.0e} FLOPs", estimate.flops),
        });
    }
}

fn lengths(experiment: &Experiment, known: &Known, all: &mut Vec<Advice>) {
    let Experiment { train, schedule, evaluate, sample, .. } = experiment;
    if schedule.warmup_steps as f64 > LONG_WARMUP * train.steps as f64 {
        all.push(Advice {
            key: "schedule.warmup_steps",
            message: format!("warmup takes {} of {} steps", schedule.warmup_steps, train.steps),
            fix: "a few percent of the steps is usual".to_owned(),
        });
    }
    for (key, every, on_purpose) in [
        ("evaluate.every_steps", evaluate.every_steps, known.evaluates_on_purpose),
        ("sample.every_steps", sample.every_steps, known.samples_on_purpose),
    ] {
        if on_purpose && every > train.steps {
            all.push(Advice {
                key,
                message: format!("the interval is {every} steps, but training has only {}", train.steps),
                fix: format!("set {key} below train.steps, or to 0 to disable it"),
            });
        }
    }
}

fn validation(experiment: &Experiment, estimate: &Estimate, known: &Known, all: &mut Vec<Advice>) {
    let Some(held) = known.validation_tokens.filter(|tokens| *tokens > 0) else { return };
    let scored = experiment.evaluate.max_tokens.map_or(held, |most| most.min(held));
    let error = LOSS_DEVIATION / (scored as f64).sqrt();
    if error > WANTED_ERROR {
        all.push(Advice {
            key: if scored < held { "evaluate.max_tokens" } else { "dataset.validation.fraction" },
            message: format!(
                "with {scored} validation tokens, the loss has a standard error of about {error:.2} nats, too \
                 much to compare runs"
            ),
            fix: format!("evaluate on at least {:.0} tokens", (LOSS_DEVIATION / WANTED_ERROR).powi(2)),
        });
    }
    let every = experiment.evaluate.every_steps;
    if every == 0 {
        return;
    }
    // A forward pass costs a third of a training step.
    let share = scored as f64 / 3.0 / (every as f64 * estimate.tokens_per_step as f64);
    if share > 1.0 {
        all.push(Advice {
            key: "evaluate.every_steps",
            message: format!(
                "evaluation takes about {share:.0} times as long as the training steps between evaluations"
            ),
            fix: "raise evaluate.every_steps, or set evaluate.max_tokens".to_owned(),
        });
    }
}

/// The advice for the source that is read most often.
fn epochs(estimate: &Estimate, known: &Known, all: &mut Vec<Advice>) {
    let epochs = |source: &SourceTokens| source.epochs(estimate.tokens);
    let most = known.sources.iter().max_by(|a, b| epochs(a).total_cmp(&epochs(b)));
    let Some(source) = most.filter(|source| epochs(source) > USEFUL_EPOCHS) else { return };
    let (epochs, name) = (epochs(source), &source.name);
    let useful = format!("more than {USEFUL_EPOCHS:.0} bring little benefit");
    all.push(match known.sources.len() {
        1 => Advice {
            key: "train.steps",
            message: format!("training runs for {epochs:.1} epochs; {useful}"),
            fix: "train for fewer steps, or on more text".to_owned(),
        },
        _ => Advice {
            key: "dataset.source",
            message: format!("training reads source `{name}` {epochs:.1} times; {useful}"),
            fix: format!("lower the weight of `{name}`, add text to it, or train for fewer steps"),
        },
    });
}

fn overlap(known: &Known, all: &mut Vec<Advice>) {
    if let Some(overlap) = known.overlap {
        all.push(Advice { key: "dataset.validation", message: overlap.message(), fix: FIX.to_owned() });
    }
}

fn checkpoints(experiment: &Experiment, estimate: &Estimate, known: &Known, all: &mut Vec<Advice>) {
    let Some(speed) = known.tokens_per_second.filter(|speed| *speed > 0.0) else { return };
    let every = experiment.checkpoint.every_steps;
    let secs = every as f64 * estimate.tokens_per_step as f64 / speed;
    if secs > LONG_SECS && experiment.train.steps > every {
        all.push(Advice {
            key: "checkpoint.every_steps",
            message: format!(
                "checkpoints are {:.1} hours apart; a crash would lose up to that much work",
                secs / 3600.0
            ),
            fix: format!("set checkpoint.every_steps to about {:.0}", every as f64 * LONG_SECS / 4.0 / secs),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::estimate::estimate;
    use crate::plan::overlap::OverlapUnit;
    use crate::plan::{NetworkAccess, complete};
    use oss_config::{Overrides, Preset, load};
    use oss_data::sources::Watch;
    use oss_runs::run_dir::RunsDir;

    fn source(name: &str, share: f64, tokens: u64) -> SourceTokens {
        SourceTokens { name: name.into(), share, tokens }
    }

    fn keys(change: impl FnOnce(&mut Experiment, &mut Known)) -> Vec<&'static str> {
        let mut experiment = Experiment { model: Preset::Tiny.model(), ..Experiment::default() };
        experiment.model.vocab_size = Some(1024);
        experiment.optimizer.lr = 2e-3;
        let mut known = Known {
            sources: vec![source("all", 1.0, 50_000_000)],
            validation_tokens: Some(100_000),
            tokens_per_second: Some(10_000.0),
            ..Known::default()
        };
        change(&mut experiment, &mut known);
        advice(&experiment, &estimate(&experiment), &known).into_iter().map(|advice| advice.key).collect()
    }

    #[test]
    fn each_mistake_gets_its_warning_and_no_other() {
        assert_eq!(keys(|_, _| ()), [""; 0]);
        assert_eq!(keys(|e, _| e.optimizer.lr = 0.9), ["optimizer.lr"]);
        assert_eq!(keys(|e, _| e.optimizer.lr = 1e-6), ["optimizer.lr"]);
        let huge = ["train.global_batch_size", "train.steps", "checkpoint.every_steps"];
        assert_eq!(keys(|e, _| e.train.global_batch_size = 4096), huge);
        assert_eq!(keys(|e, _| e.schedule.warmup_steps = 900), ["schedule.warmup_steps"]);
        assert_eq!(keys(|_, known| known.validation_tokens = Some(900)), ["dataset.validation.fraction"]);
        assert_eq!(keys(|e, _| e.evaluate.max_tokens = Some(900)), ["evaluate.max_tokens"]);
        assert_eq!(keys(|e, _| e.evaluate.every_steps = 1), ["evaluate.every_steps"]);
        assert_eq!(keys(|_, known| known.sources[0].tokens = 3_000_000), ["train.steps"]);
        let shared = Overlap { unit: OverlapUnit::Documents, shared: 3, total: 90 };
        assert_eq!(keys(|_, known| known.overlap = Some(shared)), ["dataset.validation"]);
        assert_eq!(keys(|_, known| known.tokens_per_second = Some(500.0)), ["checkpoint.every_steps"]);
        let seldom = |e: &mut Experiment, known: &mut Known| {
            e.sample.every_steps = 5000;
            known.samples_on_purpose = true;
        };
        assert_eq!(keys(seldom), ["sample.every_steps"]);
        assert_eq!(keys(|e, _| e.model.init_from = Some("openai/gpt-oss-20b".into())), [""; 0]);
    }

    #[test]
    fn each_source_of_a_mix_has_its_own_epochs() {
        let mix = |tokens| {
            keys(|_, known| {
                known.sources = vec![source("big", 0.9, 50_000_000), source("small", 0.1, tokens)];
            })
        };
        assert_eq!(mix(1_000_000), [""; 0]);
        assert_eq!(mix(10_000), ["dataset.source"]);
        assert_eq!(source("small", 0.1, 10_000).epochs(1_000_000), 10.0);
    }

    #[test]
    fn the_shipped_experiments_get_no_warnings() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
        for inner in ["", "sweeps"] {
            for entry in std::fs::read_dir(folder.join(inner)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|end| end != "toml") {
                    continue;
                }
                let loaded = load(&path, &Overrides::default()).unwrap();
                let runs = RunsDir::new("/nowhere");
                let local = NetworkAccess::Local(Watch::quiet());
                let experiment = complete(&loaded, &runs, local).unwrap().experiment;
                let known =
                    Known { evaluates_on_purpose: true, samples_on_purpose: true, ..Known::default() };
                let found = advice(&experiment, &estimate(&experiment), &known);
                assert_eq!(found, [], "{}", path.display());
            }
        }
    }
}
