//! What a practitioner would say of a plan: things that run, and probably not as they were meant.
//!
//! Few, and quiet on sound experiments: a warning that is always there is never read. What the file alone shows to be a
//! slip is told when it is loaded; this needs parameters, tokens and times.

use serde::Serialize;

use super::estimate::Estimate;
use oss_config::Experiment;
use oss_train::optimizer::{ParamGroup, update_rule};

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The key that is likeliest to be changed.
    pub key: &'static str,
    /// What looks wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

/// What is known beside the experiment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Training tokens, once they are prepared.
    pub training_tokens: Option<u64>,
    /// Validation tokens, once they are prepared.
    pub validation_tokens: Option<u64>,
    /// Tokens a second, once measured.
    pub tokens_per_second: Option<f64>,
    /// `evaluate.every_steps` was chosen by somebody.
    pub evaluates_on_purpose: bool,
    /// `sample.every_steps` was chosen by somebody.
    pub samples_on_purpose: bool,
}

/// A longer warm-up leaves little of the run at its learning rate.
const LONG_WARMUP: f64 = 0.5;

/// Passes over the text beyond which repeating it teaches little (arXiv:2305.16264).
const USEFUL_EPOCHS: f64 = 4.0;

/// Deviation of one token's loss in nats, roughly, whatever the model.
const LOSS_DEVIATION: f64 = 2.5;

/// A validation loss that is known no better than this tells no two runs apart.
const WANTED_ERROR: f64 = 0.03;

/// Work that nobody wants to lose.
const LONG_SECS: f64 = 2.0 * 3600.0;

/// Fits are made between 1e17 and 2e19 FLOPs; below so many, what is usual changes little any more.
const LEAST_FITTED: f64 = 1e15;

/// Of runs of so few FLOPs nothing is said: they are toys.
const TOY: f64 = 1e12;

/// How far from the fits below still seems meant.
const FAR_LR: (f64, f64) = (1.0 / 30.0, 5.0);
const FAR_BATCH: (f64, f64) = (1.0 / 60.0, 30.0);

/// What to say of `experiment`, the gravest first.
pub fn advice(experiment: &Experiment, estimate: &Estimate, known: &Known) -> Vec<Advice> {
    let mut all = Vec::new();
    rates(experiment, estimate, &mut all);
    lengths(experiment, known, &mut all);
    validation(experiment, estimate, known, &mut all);
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
    // Of fine-tuning the fits say nothing.
    if model.init_from.is_some() || estimate.flops < TOY {
        return;
    }
    let flops = estimate.flops.max(LEAST_FITTED);
    let rule = update_rule(optimizer.kind, ParamGroup::BlockMatrices);
    let is_far = |lr: &f64| !(FAR_LR.0..=FAR_LR.1).contains(&(optimizer.lr / lr));
    if let Some(lr) = rule.usual_lr(flops).filter(is_far) {
        let side = if optimizer.lr > lr { "above" } else { "below" };
        all.push(Advice {
            key: "optimizer.lr",
            message: format!(
                "a peak learning rate of {} is far {side} what runs of this size use",
                optimizer.lr
            ),
            fix: format!("about {lr:.0e} is usual for {} and {:.0e} FLOPs", rule.name(), estimate.flops),
        });
    }
    let batch = usual_batch(flops);
    let ratio = estimate.tokens_per_step as f64 / batch;
    // A single sequence can be no smaller.
    if !(FAR_BATCH.0..=FAR_BATCH.1).contains(&ratio) && (ratio > 1.0 || train.global_batch_size > 1) {
        let side = if ratio > 1.0 { "many" } else { "few" };
        all.push(Advice {
            key: "train.global_batch_size",
            message: format!("{} tokens a step are {side} for a run of this size", estimate.tokens_per_step),
            fix: format!("about {batch:.0e} tokens are usual for {:.0e} FLOPs", estimate.flops),
        });
    }
}

fn lengths(experiment: &Experiment, known: &Known, all: &mut Vec<Advice>) {
    let Experiment { train, schedule, evaluate, sample, .. } = experiment;
    if schedule.warmup_steps as f64 > LONG_WARMUP * train.steps as f64 {
        all.push(Advice {
            key: "schedule.warmup_steps",
            message: format!("the warm-up takes {} of {} steps", schedule.warmup_steps, train.steps),
            fix: "a few per cent of the steps is usual".to_owned(),
        });
    }
    for (key, every, on_purpose) in [
        ("evaluate.every_steps", evaluate.every_steps, known.evaluates_on_purpose),
        ("sample.every_steps", sample.every_steps, known.samples_on_purpose),
    ] {
        if on_purpose && every > train.steps {
            all.push(Advice {
                key,
                message: format!("it comes every {every} steps, and training has {}", train.steps),
                fix: format!("set {key} below train.steps, or to 0"),
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
            key: if scored < held { "evaluate.max_tokens" } else { "dataset.validation.share" },
            message: format!(
                "{scored} validation tokens tell the loss to about {error:.2} nats, too little to compare runs by"
            ),
            fix: format!("score {:.0} or more", (LOSS_DEVIATION / WANTED_ERROR).powi(2)),
        });
    }
    let every = experiment.evaluate.every_steps;
    if every == 0 {
        return;
    }
    // An evaluation is the forward third of a step.
    let share = scored as f64 / 3.0 / (every as f64 * estimate.tokens_per_step as f64);
    if share > 1.0 {
        all.push(Advice {
            key: "evaluate.every_steps",
            message: format!("evaluations take about {share:.0} times as long as the training between them"),
            fix: "raise evaluate.every_steps, or set evaluate.max_tokens".to_owned(),
        });
    }
}

fn epochs(estimate: &Estimate, known: &Known, all: &mut Vec<Advice>) {
    let Some(tokens) = known.training_tokens.filter(|tokens| *tokens > 0) else { return };
    let epochs = estimate.tokens as f64 / tokens as f64;
    if epochs > USEFUL_EPOCHS {
        all.push(Advice {
            key: "train.steps",
            message: format!(
                "the text is passed {epochs:.1} times; beyond {USEFUL_EPOCHS:.0} it teaches little"
            ),
            fix: "take fewer steps, or more text".to_owned(),
        });
    }
}

fn checkpoints(experiment: &Experiment, estimate: &Estimate, known: &Known, all: &mut Vec<Advice>) {
    let Some(speed) = known.tokens_per_second.filter(|speed| *speed > 0.0) else { return };
    let every = experiment.checkpoint.every_steps;
    let secs = every as f64 * estimate.tokens_per_step as f64 / speed;
    if secs > LONG_SECS && experiment.train.steps > every {
        all.push(Advice {
            key: "checkpoint.every_steps",
            message: format!("checkpoints are {:.1} hours apart, which a crash would lose", secs / 3600.0),
            fix: format!("set checkpoint.every_steps to about {:.0}", every as f64 * LONG_SECS / 4.0 / secs),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::estimate::estimate;
    use crate::plan::with_vocabulary;
    use oss_config::{Overrides, Preset, load};

    fn keys(change: impl FnOnce(&mut Experiment, &mut Known)) -> Vec<&'static str> {
        let mut experiment = Experiment { model: Preset::Tiny.model(), ..Experiment::default() };
        experiment.model.vocab_size = Some(1024);
        experiment.optimizer.lr = 2e-3;
        let mut known = Known {
            training_tokens: Some(50_000_000),
            validation_tokens: Some(100_000),
            tokens_per_second: Some(10_000.0),
            ..Known::default()
        };
        change(&mut experiment, &mut known);
        advice(&experiment, &estimate(&experiment), &known).into_iter().map(|advice| advice.key).collect()
    }

    #[test]
    fn each_slip_is_told_and_nothing_else() {
        assert_eq!(keys(|_, _| ()), [""; 0]);
        assert_eq!(keys(|e, _| e.optimizer.lr = 0.9), ["optimizer.lr"]);
        assert_eq!(keys(|e, _| e.optimizer.lr = 1e-6), ["optimizer.lr"]);
        let huge = ["train.global_batch_size", "train.steps", "checkpoint.every_steps"];
        assert_eq!(keys(|e, _| e.train.global_batch_size = 4096), huge);
        assert_eq!(keys(|e, _| e.schedule.warmup_steps = 900), ["schedule.warmup_steps"]);
        assert_eq!(keys(|_, known| known.validation_tokens = Some(900)), ["dataset.validation.share"]);
        assert_eq!(keys(|e, _| e.evaluate.max_tokens = Some(900)), ["evaluate.max_tokens"]);
        assert_eq!(keys(|e, _| e.evaluate.every_steps = 1), ["evaluate.every_steps"]);
        assert_eq!(keys(|_, known| known.training_tokens = Some(3_000_000)), ["train.steps"]);
        assert_eq!(keys(|_, known| known.tokens_per_second = Some(500.0)), ["checkpoint.every_steps"]);
        let seldom = |e: &mut Experiment, known: &mut Known| {
            e.sample.every_steps = 5000;
            known.samples_on_purpose = true;
        };
        assert_eq!(keys(seldom), ["sample.every_steps"]);
        assert_eq!(keys(|e, _| e.model.init_from = Some("openai/gpt-oss-20b".into())), [""; 0]);
    }

    #[test]
    fn the_shipped_experiments_need_none() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
        for inner in ["", "sweeps"] {
            for entry in std::fs::read_dir(folder.join(inner)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|end| end != "toml") {
                    continue;
                }
                let loaded = load(&path, &Overrides::default()).unwrap();
                let experiment = with_vocabulary(&loaded.experiment).unwrap();
                let known =
                    Known { evaluates_on_purpose: true, samples_on_purpose: true, ..Known::default() };
                let found = advice(&experiment, &estimate(&experiment), &known);
                assert_eq!(found, [], "{}", path.display());
            }
        }
    }
}
