//! Compares attention with the textbook formula in f64.

use super::*;
use std::sync::Arc;
use tch::{Device, Kind};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// The oracle: eager attention with the sink as an extra column, differentiated by libtorch's autograd.
fn eager(q: &Tensor, k: &Tensor, v: &Tensor, sinks: &Tensor, visibility: &Visibility) -> Tensor {
    let (b, t, h, c) = q.size4().unwrap();
    let groups = h / k.size()[2];
    let [k, v] = [k, v].map(|x| x.transpose(1, 2).repeat_interleave_self_int(groups, 1, None::<i64>));
    let scores = q.transpose(1, 2).matmul(&k.transpose(-2, -1)) / (c as f64).sqrt();
    let position = Tensor::arange(t, (Kind::Int64, Device::Cpu));
    let distance = position.unsqueeze(1) - position.unsqueeze(0);
    let mut hidden = distance.lt(0).unsqueeze(0).expand([b, t, t], false).copy();
    if let Some(window) = visibility.window {
        hidden = hidden.logical_or(&distance.ge(window));
    }
    if let Some(documents) = &visibility.documents {
        let ids: Vec<i64> = documents
            .iter()
            .flat_map(|row| row.iter().enumerate().flat_map(|(i, &n)| vec![i as i64; n as usize]))
            .collect();
        let ids = Tensor::from_slice(&ids).view([b, t]);
        hidden = hidden.logical_or(&ids.unsqueeze(1).ne_tensor(&ids.unsqueeze(2)));
    }
    let scores = scores.masked_fill(&hidden.unsqueeze(1), f64::NEG_INFINITY);
    let sink = sinks.view([1, h, 1, 1]).expand([b, h, t, 1], false);
    let p = Tensor::cat(&[scores, sink], -1).softmax(-1, None::<Kind>).narrow(-1, 0, t);
    p.matmul(&v).transpose(1, 2)
}

/// Compares with the oracle: libtorch's operations in f64, the kernels in f32 and bf16.
fn check(b: i64, t: i64, heads: (i64, i64), visibility: &Visibility) {
    for (kind, most) in [(Kind::Double, 1e-12), (Kind::Float, 2e-6), (Kind::BFloat16, 2e-2)] {
        let numbers = |shape: &[i64], seed: f64| {
            let index = Tensor::arange(shape.iter().product::<i64>(), DOUBLE);
            let hashed = ((index + seed) * 12.9898).sin() * 43_758.5;
            let normal = ((&hashed - hashed.floor()) * 2.0 - 1.0).view(shape) * 2.0;
            normal.to_kind(kind).to_kind(Kind::Double).set_requires_grad(true)
        };
        let (q, k, v) = (
            numbers(&[b, t, heads.0, 8], 0.1),
            numbers(&[b, t, heads.1, 8], 0.2),
            numbers(&[b, t, heads.1, 8], 0.3),
        );
        let (sinks, grad) = (numbers(&[heads.0], 0.4), numbers(&[b, t, heads.0, 8], 0.5).detach());
        let expected = eager(&q, &k, &v, &sinks, visibility);
        let wanted =
            Tensor::run_backward(&[(&expected * &grad).sum(None)], &[&q, &k, &v, &sinks], false, false);
        let [q, k, v, grad] = [q, k, v, grad].map(|x| x.detach().to_kind(kind));
        let sinks = sinks.detach().to_kind(if kind == Kind::Double { kind } else { Kind::Float });
        let saved = forward(&q, &k, &v, &sinks, visibility).unwrap();
        let mut ds = sinks.zeros_like();
        let [dq, dk, dv] = backward(&grad, (&q, &k, &v), &sinks, &saved, visibility, &mut ds).unwrap();
        let pairs = [
            (&saved.output, &expected),
            (&dq, &wanted[0]),
            (&dk, &wanted[1]),
            (&dv, &wanted[2]),
            (&ds, &wanted[3]),
        ];
        for (i, (seen, wanted)) in pairs.into_iter().enumerate() {
            let difference = seen.to_kind(Kind::Double) - wanted;
            let error = f64::try_from(difference.norm() / (wanted.norm() + 1e-9)).unwrap();
            assert!(
                error < most,
                "t {t} heads {heads:?} {visibility:?} {kind:?}: part {i} differs by {error:e}"
            );
        }
    }
}

#[test]
fn output_and_gradients_match_eager_attention() {
    for t in [1, 2, 7, 130, 300] {
        for window in [None, Some(1), Some(5), Some(128), Some(150)] {
            check(2, t, (4, 2), &Visibility { window, documents: None });
        }
    }
    check(2, 9, (3, 3), &Visibility { window: Some(4), documents: None });
    check(2, 9, (6, 1), &Visibility { window: None, documents: None });
}

#[test]
fn a_sequence_is_split_over_threads() {
    for window in [None, Some(30)] {
        check(1, 300, (2, 1), &Visibility { window, documents: None });
    }
}

#[test]
fn tokens_attend_only_within_their_document() {
    let documents = Some(Arc::new(vec![vec![3, 290, 1, 6], vec![300]]));
    for window in [None, Some(5), Some(140)] {
        check(2, 300, (4, 2), &Visibility { window, documents: documents.clone() });
    }
}
