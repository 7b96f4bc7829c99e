//! Compares oss-run with reference values computed by transformers and torch; see `golden/make_goldens.py` for how they
//! are made and what each file contains.
//!
//! `cargo test --test numerics -- --nocapture` prints the errors.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(clippy::print_stdout, reason = "the errors are worth reading")]

mod golden;

use golden::{Golden, model_of, relative_error};
use oss_config::{Model, Optimizer};
use oss_train::distributed::{Mesh, Shards};
use oss_train::generation::{Decoding, Prompt, generate};
use oss_train::model::{Chain, ExpertLoad, Sequences, inverse_frequencies};
use oss_train::optimizer::{Step, StorageConfig};
use oss_train::train::{MicroBatch, PassOptions, PassResult, ShardedModel, UnitShard, forward_backward};
use tch::{Device, Kind, Tensor};

const CASES: [&str; 4] = ["grouped", "ungrouped", "odd", "documents"];

/// Error bound for logits and losses.
const FORWARD: f64 = 1e-5;
/// Error bound for each parameter's gradient.
const BACKWARD: f64 = 1e-4;

/// The CPU and, if there is one, the first GPU.
fn devices() -> Vec<Device> {
    if tch::Cuda::is_available() { vec![Device::Cpu, Device::Cuda(0)] } else { vec![Device::Cpu] }
}

/// The rows of an i64 `[B, T]` tensor.
fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
    Vec::<Vec<i64>>::try_from(tensor).unwrap()
}

fn micro_batches(
    inputs: &Tensor,
    targets: &Tensor,
    separator: Option<i64>,
    size: usize,
    device: Device,
) -> Vec<MicroBatch> {
    let (inputs, targets) = (rows(inputs), rows(targets));
    let micro_batch = |(inputs, targets): (&[Vec<i64>], &[Vec<i64>])| {
        let inputs: Vec<&[i64]> = inputs.iter().map(Vec::as_slice).collect();
        MicroBatch {
            inputs: Sequences::new(&inputs, separator, device),
            targets: Tensor::from_slice(&targets.concat()).to_device(device),
        }
    };
    inputs.chunks(size).zip(targets.chunks(size)).map(micro_batch).collect()
}

/// A single rank on `device`, which lives as long as the tests run.
fn mesh(device: Device) -> &'static Mesh {
    Box::leak(Box::new(Mesh::alone(device)))
}

fn load(model: &Model, golden: &mut Golden, device: Device) -> ShardedModel<'static> {
    ShardedModel::load(model, golden, mesh(device), &StorageConfig::f32(Kind::Float)).unwrap()
}

/// One forward and backward pass over a case's batch; the units hold its gradients.
fn pass(
    golden: &mut Golden,
    device: Device,
    micro_batch_size: usize,
    options: PassOptions,
) -> (ShardedModel<'static>, PassResult) {
    let model = model_of(golden);
    let mut sharded = load(&model, golden, device);
    let (inputs, targets) = (golden.tensor("input_ids"), golden.tensor("targets"));
    let batch = micro_batches(&inputs, &targets, golden.separator(), micro_batch_size, device);
    let result = forward_backward(&model, &mut sharded, &batch, options).unwrap();
    (sharded, result)
}

fn options() -> PassOptions {
    PassOptions {
        kind: Kind::Float,
        activation_checkpointing: false,
        router_aux_loss_coef: 0.0,
        loss_scale: 1.0,
    }
}

/// Compares every gradient with `expected`, by Hugging Face name. If the true gradient is zero, ours must be tiny.
fn compare_gradients(sharded: &ShardedModel<'_>, expected: impl Fn(&str) -> Tensor, label: &str) {
    let mut worst = (0.0, String::new());
    for (spec, gradient) in sharded.views(UnitShard::gradients) {
        let expected = expected(&spec.name);
        let error = if expected.norm().double_value(&[]) == 0.0 {
            gradient.norm().double_value(&[])
        } else {
            relative_error(&gradient, &expected)
        };
        assert!(error <= BACKWARD, "{label}: gradient of {} is off by {error:.1e}", spec.name);
        if error > worst.0 {
            worst = (error, spec.name.clone());
        }
    }
    println!("{label}: worst gradient {:.1e} ({})", worst.0, worst.1);
}

#[test]
fn logits_match_transformers() {
    for device in devices() {
        for name in CASES {
            let mut golden = Golden::open(name);
            let model = model_of(&golden);
            let weights = Shards::load(&model, &mut golden, mesh(device), Kind::Float).unwrap();
            let chain = Chain { model: &model, weights: &weights, kind: Kind::Float };
            let inputs = rows(&golden.tensor("input_ids"));
            let inputs: Vec<&[i64]> = inputs.iter().map(Vec::as_slice).collect();
            let logits = chain.logits(&Sequences::new(&inputs, golden.separator(), device)).unwrap();
            let error = relative_error(&logits, &golden.tensor("logits"));
            println!("{name} on {device:?}: logits {error:.1e}");
            assert!(error <= FORWARD, "{name} on {device:?}: logits are off by {error:.1e}");
        }
    }
}

#[test]
fn loss_and_every_gradient_match_transformers() {
    for device in devices() {
        for name in CASES {
            for (micro_batch_size, recompute) in [(8, false), (1, true)] {
                let mut golden = Golden::open(name);
                let options = PassOptions { activation_checkpointing: recompute, ..options() };
                let (sharded, result) = pass(&mut golden, device, micro_batch_size, options);
                let label = format!("{name} on {device:?}, micro-batch size {micro_batch_size}");
                let expected = golden.scalar("loss");
                let loss = result.loss.double_value(&[]);
                let error = (loss / expected - 1.0).abs();
                assert!(error <= FORWARD, "{label}: loss {loss} is not {expected}");
                compare_gradients(&sharded, |name| golden.tensor(&format!("gradient/{name}")), &label);
            }
        }
    }
}

#[test]
fn the_balancing_loss_and_its_gradients_match_transformers() {
    // So large that the gradient of the cross-entropy loss is small in comparison.
    let weight = 1000.0;
    for device in devices() {
        for name in CASES {
            let mut golden = Golden::open(name);
            let options = PassOptions { router_aux_loss_coef: weight, ..options() };
            let (sharded, result) = pass(&mut golden, device, 1, options);
            let expected = Vec::<f64>::try_from(golden.tensor("balance").to_kind(Kind::Double)).unwrap();
            for (layer, (load, expected)) in result.loads.iter().zip(&expected).enumerate() {
                let error = (load.balance_loss() / expected - 1.0).abs();
                assert!(error <= FORWARD, "{name}, layer {layer}: {} is not {expected}", load.balance_loss());
            }
            let mean = expected.iter().sum::<f64>() / expected.len() as f64;
            let seen = ExpertLoad::mean_balance_loss(&result.loads);
            assert!((seen / mean - 1.0).abs() <= FORWARD, "{name}: {seen} is not {mean}");

            let both = |name: &str| {
                let gradient = golden.tensor(&format!("gradient/{name}"));
                match golden.find(&format!("balance_gradient/{name}")) {
                    Some(balance) => gradient + balance * weight,
                    None => gradient,
                }
            };
            compare_gradients(&sharded, both, &format!("{name} on {device:?}, balanced"));
        }
    }
}

#[test]
fn greedy_tokens_match_transformers_with_and_without_a_cache() {
    for device in devices() {
        for name in ["grouped", "ungrouped"] {
            let mut golden = Golden::open(name);
            let model = model_of(&golden);
            let weights = Shards::load(&model, &mut golden, mesh(device), Kind::Float).unwrap();
            let chain = Chain { model: &model, weights: &weights, kind: Kind::Float };
            let texts = golden.greedy();
            assert!(!texts.is_empty());
            let prompts: Vec<Prompt> =
                texts.iter().map(|(prompt, _)| Prompt { tokens: prompt.clone(), stream: 0 }).collect();
            let new_tokens = texts[0].1.len();
            assert!(new_tokens >= 64 && new_tokens as i64 > model.sliding_window);
            let decoding = Decoding {
                max_new_tokens: new_tokens as u64,
                temperature: 0.0,
                top_k: None,
                top_p: None,
                seed: 0,
                end_tokens: Vec::new(),
            };
            let cached =
                generate(&chain, mesh(device), &prompts, &decoding, |_, _| false, |_| Ok(())).unwrap();
            for ((prompt, expected), cached) in texts.iter().zip(&cached) {
                assert_eq!(cached, expected, "{name} on {device:?}, with a cache");
                let mut tokens = prompt.clone();
                while tokens.len() < prompt.len() + new_tokens {
                    let logits = chain.logits(&Sequences::new(&[&tokens], None, device)).unwrap();
                    tokens.push(logits.get(0).get(-1).argmax(-1, false).int64_value(&[]));
                }
                assert_eq!(&tokens[prompt.len()..], expected, "{name} on {device:?}, without a cache");
            }
        }
    }
}

#[test]
fn adamw_with_clipping_matches_torch() {
    for device in devices() {
        let mut golden = Golden::open("adamw");
        let model = model_of(&golden);
        let optimizer: Optimizer = serde_json::from_value(golden.case["optimizer"].clone()).unwrap();
        let mut sharded = load(&model, &mut golden, device);
        let (inputs, targets) = (golden.tensor("input_ids"), golden.tensor("targets"));
        for step in 0..inputs.size()[0] {
            let batch = micro_batches(&inputs.get(step), &targets.get(step), None, 1, device);
            let result = forward_backward(&model, &mut sharded, &batch, options()).unwrap();
            let expected = golden.tensor("losses").double_value(&[step]);
            let loss = result.loss.double_value(&[]);
            let error = (loss / expected - 1.0).abs();
            assert!(error <= FORWARD, "step {step} on {device:?}: loss {loss} is not {expected}");

            let norm = sharded
                .units()
                .iter()
                .map(|unit| unit.gradient.norm().double_value(&[]).powi(2))
                .sum::<f64>()
                .sqrt();
            let expected = golden.tensor("gradient_norms").double_value(&[step]);
            let error = (norm / expected - 1.0).abs();
            assert!(error <= BACKWARD, "step {step} on {device:?}: gradient norm {norm} is not {expected}");

            let divisor = norm / optimizer.clip_norm().unwrap();
            let step = Step::new(&optimizer, optimizer.lr, step as u64, divisor, 0, device);
            for unit in sharded.units_mut().unwrap() {
                unit.step(&step, None, &mesh(device).reduce).unwrap();
            }
        }
        let mut worst: f64 = 0.0;
        for (spec, weight) in sharded.views(UnitShard::weights) {
            let error = relative_error(&weight, &golden.tensor(&format!("final/{}", spec.name)));
            assert!(error <= FORWARD, "{} on {device:?} is off by {error:.1e} at the end", spec.name);
            worst = worst.max(error);
        }
        println!("AdamW on {device:?}: worst weight {worst:.1e}");
    }
}

#[test]
fn yarn_frequencies_match_transformers() {
    for entry in golden::yarn() {
        let (frequencies, factor) = inverse_frequencies(&entry.model);
        assert_eq!(frequencies.len(), entry.inv_freq.len());
        assert!((factor / entry.attention_factor - 1.0).abs() < 1e-12, "{factor}");
        for (i, (ours, theirs)) in frequencies.iter().zip(&entry.inv_freq).enumerate() {
            // The reference values are f32.
            assert!(
                (ours / theirs - 1.0).abs() < 1e-6,
                "{:?}: frequency {i}: {ours}, not {theirs}",
                entry.model
            );
        }
    }
}
