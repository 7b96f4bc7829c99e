//! Checks the whole model against libtorch's autograd in f64, the oracle for every hand-written backward.

use std::sync::Arc;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{MicroBatch, PassOptions, ShardedModel, UnitShard, forward_backward};
use crate::distributed::Mesh;
use crate::model::{ExpertLoad, Parameter, Sequences, WeightSource, parameters};
use crate::optimizer::StorageConfig;
use oss_config::{LayerType, Model, Preset};

/// Random weights, large enough to exercise clamps, sinks and biases.
struct Random(std::collections::HashMap<String, Tensor>);

impl Random {
    fn new(model: &Model, seed: i64) -> Self {
        tch::manual_seed(seed);
        let draw = |shape: &[i64]| Tensor::randn(shape, (Kind::Double, Device::Cpu)) * 0.5;
        Self(parameters(model).into_iter().map(|spec| (spec.name.clone(), draw(&spec.shape))).collect())
    }
}

impl WeightSource for Random {
    fn load(&mut self, parameter: Parameter) -> Result<Tensor> {
        Ok(self.0[&parameter.name()].shallow_clone())
    }
}

/// Mean loss and mean load-balancing loss, written directly from the definitions.
fn eager(
    model: &Model,
    weights: &Random,
    tokens: &Tensor,
    documents: Option<&[Vec<i64>]>,
) -> (Tensor, Tensor) {
    let w = |name: &str| &weights.0[name];
    let (b, t) = (tokens.size()[0], tokens.size()[1] - 1);
    let (inputs, targets) = (tokens.narrow(1, 0, t), tokens.narrow(1, 1, t));
    let norm = |x: &Tensor, weight: &Tensor| {
        x * (x.square().mean_dim([-1i64].as_slice(), true, None) + model.rms_norm_eps).rsqrt() * weight
    };
    let (frequencies, scale) = crate::model::inverse_frequencies(model);
    let angles = Tensor::arange(t, (Kind::Double, Device::Cpu)).unsqueeze(1)
        * Tensor::from_slice(&frequencies).unsqueeze(0);
    let (cos, sin) = (angles.cos() * scale, angles.sin() * scale);
    let rotate = |x: Tensor| {
        let half = x.chunk(2, -1);
        Tensor::cat(&[&half[0] * &cos - &half[1] * &sin, &half[1] * &cos + &half[0] * &sin], -1)
    };
    let mut x = w("model.embed_tokens.weight").index_select(0, &inputs.flatten(0, -1));
    let mut balance = Tensor::zeros([], (Kind::Double, Device::Cpu));
    for layer in 0..model.num_hidden_layers {
        let w = |name: &str| w(&format!("model.layers.{layer}.{name}"));
        let n = norm(&x, w("input_layernorm.weight"));
        let project = |name: &str, heads: i64| {
            let y = n.matmul(&w(&format!("self_attn.{name}_proj.weight")).transpose(0, 1))
                + w(&format!("self_attn.{name}_proj.bias"));
            y.view([b, t, heads, model.head_dim]).transpose(1, 2)
        };
        let (h, k) = (model.num_attention_heads, model.num_key_value_heads);
        let q = rotate(project("q", h));
        let repeat = |x: Tensor| x.repeat_interleave_self_int(h / k, 1, None::<i64>);
        let (keys, values) = (repeat(rotate(project("k", k))), repeat(project("v", k)));
        let scores = q.matmul(&keys.transpose(-2, -1)) / (model.head_dim as f64).sqrt();
        let at = Tensor::arange(t, (Kind::Int64, Device::Cpu));
        let distance = at.unsqueeze(1) - at.unsqueeze(0);
        let mut hidden = distance.lt(0);
        if model.layer_type(layer) == LayerType::SlidingAttention {
            hidden = hidden.logical_or(&distance.ge(model.sliding_window));
        }
        let mut hidden = hidden.unsqueeze(0);
        if let Some(documents) = documents {
            let ids: Vec<i64> = documents
                .iter()
                .flat_map(|row| row.iter().enumerate().flat_map(|(i, &n)| vec![i as i64; n as usize]))
                .collect();
            let ids = Tensor::from_slice(&ids).view([b, t]);
            hidden = hidden.logical_or(&ids.unsqueeze(1).ne_tensor(&ids.unsqueeze(2)));
        }
        let scores = scores.masked_fill(&hidden.unsqueeze(1), f64::NEG_INFINITY);
        let sinks = w("self_attn.sinks").view([1, h, 1, 1]).expand([b, h, t, 1], false);
        let p = Tensor::cat(&[scores, sinks], -1).softmax(-1, None::<Kind>).narrow(-1, 0, t);
        let o = p.matmul(&values).transpose(1, 2).reshape([b * t, -1]);
        x = x + o.matmul(&w("self_attn.o_proj.weight").transpose(0, 1)) + w("self_attn.o_proj.bias");

        let n = norm(&x, w("post_attention_layernorm.weight"));
        let logits = n.matmul(&w("mlp.router.weight").transpose(0, 1)) + w("mlp.router.bias");
        let (top, experts) = logits.topk(model.num_experts_per_tok, -1, true, true);
        let share = Tensor::zeros_like(&logits).scatter(-1, &experts, &top.softmax(-1, None::<Kind>));
        let chosen = Tensor::zeros_like(&logits).scatter_value(-1, &experts, 1.0);
        let f = chosen.mean_dim([0i64].as_slice(), false, None);
        let probability = logits.softmax(-1, None::<Kind>).mean_dim([0i64].as_slice(), false, None);
        balance += (f * probability).sum(None) * model.num_local_experts;
        for expert in 0..model.num_local_experts {
            let gate_up = n.matmul(&w("mlp.experts.gate_up_proj").get(expert))
                + w("mlp.experts.gate_up_proj_bias").get(expert);
            let width = gate_up.size()[1];
            let gate = gate_up.slice(1, 0, width, 2).clamp_max(model.swiglu_limit);
            let up = gate_up.slice(1, 1, width, 2).clamp(-model.swiglu_limit, model.swiglu_limit);
            let hidden = (up + 1.0) * &gate * (&gate * 1.702).sigmoid();
            let y = hidden.matmul(&w("mlp.experts.down_proj").get(expert))
                + w("mlp.experts.down_proj_bias").get(expert);
            x = &x + y * share.narrow(1, expert, 1);
        }
    }
    let logits = norm(&x, w("model.norm.weight")).matmul(&w("lm_head.weight").transpose(0, 1));
    let loss =
        logits.cross_entropy_loss::<Tensor>(&targets.flatten(0, -1), None, tch::Reduction::Mean, -100, 0.0);
    (loss, balance / model.num_hidden_layers)
}

fn shape() -> Model {
    Model {
        vocab_size: Some(29),
        hidden_size: 24,
        head_dim: 8,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        intermediate_size: 20,
        num_hidden_layers: 3,
        num_local_experts: 5,
        num_experts_per_tok: 2,
        sliding_window: 6,
        swiglu_limit: 1.5,
        ..Preset::Tiny.model()
    }
}

/// Compares the loss and every gradient of the unit-major driver in `kind` with autograd in f64.
fn check(kind: Kind, documents: Option<Vec<Vec<i64>>>, recompute: bool, micro: i64) {
    let tolerance = if kind == Kind::Double { 1e-10 } else { 2e-5 };
    let model = shape();
    let mut weights = Random::new(&model, 3);
    let (b, t) = (4, 17);
    let tokens = Tensor::randint(29, [b, t + 1], (Kind::Int64, Device::Cpu));
    let balance_weight = 0.3;

    for tensor in weights.0.values_mut() {
        *tensor = tensor.set_requires_grad(true);
    }
    let (loss, balance) = eager(&model, &weights, &tokens, documents.as_deref());
    let specs = parameters(&model);
    let leaves: Vec<&Tensor> = specs.iter().map(|spec| &weights.0[&spec.name]).collect();
    let wanted = Tensor::run_backward(&[&loss + &balance * balance_weight], &leaves, false, false);
    for tensor in weights.0.values_mut() {
        *tensor = tensor.detach();
    }

    let mesh = Mesh::alone(Device::Cpu);
    let mut sharded =
        ShardedModel::load(&model, &mut weights, &mesh, &StorageConfig::f32(Kind::Float)).unwrap();
    for unit in sharded.units_mut().unwrap() {
        // Training's buffers are f32; in f64 the formulas can be compared without rounding error.
        for flat in [&mut unit.matrices.weights, &mut unit.rest.weights, &mut unit.gradient] {
            *flat = flat.to_kind(kind);
        }
    }
    for (spec, mut view) in sharded.views(UnitShard::weights) {
        view.copy_(&weights.0[&spec.name]);
    }
    let batch: Vec<MicroBatch> = (0..b / micro)
        .map(|i| {
            let rows = tokens.narrow(0, i * micro, micro);
            let of_rows = |all: &Vec<Vec<i64>>| {
                Arc::new(all[(i * micro) as usize..((i + 1) * micro) as usize].to_vec())
            };
            MicroBatch {
                inputs: Sequences {
                    tokens: rows.narrow(1, 0, t).contiguous(),
                    documents: documents.as_ref().map(of_rows),
                },
                targets: rows.narrow(1, 1, t).flatten(0, -1),
            }
        })
        .collect();
    let options = PassOptions {
        kind,
        activation_checkpointing: recompute,
        router_aux_loss_coef: balance_weight,
        loss_scale: 1.0,
    };
    let result = forward_backward(&model, &mut sharded, &batch, options).unwrap();
    let [seen, expected] = [&result.loss, &loss].map(|loss| loss.double_value(&[]));
    assert!((seen - expected).abs() < tolerance, "loss {seen}, expected {expected}");
    assert!((ExpertLoad::mean_balance_loss(&result.loads) - balance.double_value(&[])).abs() < tolerance);
    let seen: Vec<_> = sharded.views(UnitShard::gradients).collect();
    assert_eq!(seen.len(), specs.len());
    for ((spec, seen), wanted) in seen.into_iter().zip(wanted) {
        let error = f64::try_from((seen - &wanted).norm() / wanted.norm()).unwrap();
        assert!(error < tolerance, "{} differs by {error:e}", spec.name);
    }
}

#[test]
fn every_gradient_matches_autograd() {
    check(Kind::Double, None, false, 4);
}

#[test]
fn checkpointed_and_accumulated_gradients_match_autograd() {
    check(Kind::Double, None, true, 4);
    check(Kind::Double, None, false, 1);
    check(Kind::Double, None, true, 2);
}

#[test]
fn gradients_of_packed_documents_match_autograd() {
    check(Kind::Double, Some(vec![vec![17], vec![1, 16], vec![8, 9], vec![5, 5, 7]]), false, 2);
}

/// The CPU kernels compute in f32.
#[test]
fn f32_gradients_match_autograd() {
    check(Kind::Float, None, false, 4);
    check(Kind::Float, None, true, 2);
    check(Kind::Float, Some(vec![vec![17], vec![1, 16], vec![8, 9], vec![5, 5, 7]]), false, 2);
}
