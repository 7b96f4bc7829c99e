//! Compares each kernel with the same formula in f64 libtorch operations.

use super::*;
use oss_torch::{has_few_rows_gemm, to_vec};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Largest difference allowed, relative to the largest element.
fn tolerance(kind: Kind) -> f64 {
    if kind == Kind::Float { 2e-6 } else { 8e-3 }
}

thread_local! {
    static DRAWN: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// Pseudorandom values of variance 1, the same in every run: libtorch's generator is shared with other tests.
fn numbers(shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let first = DRAWN.replace(DRAWN.get() + count);
    let hashed = (Tensor::arange_start(first, first + count, DOUBLE) * 12.9898).sin() * 43_758.5;
    ((&hashed - hashed.floor() - 0.5) * 12f64.sqrt()).view(shape)
}

/// Values like those of [`numbers`], rounded to `kind`, and the rounded values in f64.
fn draw(shape: &[i64], kind: Kind) -> (Tensor, Tensor) {
    let narrow = numbers(shape).to_kind(kind);
    let wide = narrow.to_kind(Kind::Double);
    (narrow, wide)
}

fn hold(what: &str, seen: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(seen.size(), expected.size(), "{what}");
    let error = (seen.to_kind(Kind::Double) - expected).abs().max() / expected.abs().max();
    let error = f64::try_from(error).unwrap();
    assert!(error < tolerance, "{what} of {:?} {:?} differs by {error:e}", seen.kind(), seen.size());
}

fn in_both_kinds(test: impl Fn(Kind)) {
    [Kind::Float, Kind::BFloat16].into_iter().for_each(test);
}

fn mean_of_rows(x: &Tensor) -> Tensor {
    x.mean_dim([-1i64].as_slice(), true, None)
}

#[test]
fn rms_norm_and_its_gradients_match_libtorch() {
    in_both_kinds(|kind| {
        for (rows, width) in [(1, 16), (3, 19), (700, 96)] {
            let (x, wide_x) = draw(&[rows, width], kind);
            let (added, wide_added) = draw(&[rows, width], kind);
            let (weight, wide_weight) = draw(&[width], Kind::Float);
            let (sum, y, inverse) = rms_norm(&x, Some(&added), &weight, 1e-5);
            hold("the sum", &sum, &(&wide_x + wide_added), tolerance(kind));

            let wide_sum = sum.to_kind(Kind::Double).set_requires_grad(true);
            let wide_weight = wide_weight.set_requires_grad(true);
            let expected = &wide_sum * (mean_of_rows(&wide_sum.square()) + 1e-5).rsqrt() * &wide_weight;
            hold("the norm", &y, &expected, tolerance(kind));

            let (grad, wide_grad) = draw(&[rows, width], kind);
            let (beside, wide_beside) = draw(&[rows, width], kind);
            let through = Tensor::run_backward(
                &[(&expected * &wide_grad).sum(None)],
                &[&wide_sum, &wide_weight],
                false,
                false,
            );
            let mut grad_weight = Tensor::ones([width], (Kind::Float, Device::Cpu));
            let seen = rms_norm_backward(&grad, Some(&beside), &sum, &weight, &inverse, &mut grad_weight);
            hold("gradient of the rows", &seen, &(&through[0] + wide_beside), tolerance(kind));
            hold("gradient of the weight", &grad_weight, &(&through[1] + 1.0), 1e-4);
        }
    });
}

#[test]
fn swiglu_and_its_gradients_match_libtorch() {
    in_both_kinds(|kind| {
        for (rows, width) in [(1, 1), (5, 33), (300, 128)] {
            let (gate_up, wide) = draw(&[rows, 2 * width], kind);
            let (gate_up, wide) = (gate_up * 2.0, wide * 2.0); // some exceed the limit
            let wide = wide.set_requires_grad(true);
            let pairs = wide.view([rows, width, 2]);
            let gate = pairs.select(-1, 0).clamp_max(2.5);
            let up = pairs.select(-1, 1).clamp(-2.5, 2.5);
            let expected = (up + 1.0) * &gate * (&gate * 1.702).sigmoid();
            hold("SwiGLU", &swiglu(&gate_up, 2.5), &expected, tolerance(kind));
            let (grad, wide_grad) = draw(&[rows, width], kind);
            let (weight, wide_weight) = draw(&[rows], Kind::Float);
            let wide_weight = wide_weight.set_requires_grad(true);
            let weighted = expected * wide_weight.unsqueeze(-1);
            let loss = (&weighted * wide_grad).sum(None);
            let through = Tensor::run_backward(&[loss], &[&wide, &wide_weight], false, false);
            let seen = swiglu_backward(&grad, &gate_up, &weight, 2.5);
            hold("weighted rows", &seen.weighted, &weighted, tolerance(kind));
            hold("their gradient", &seen.grad_gate_up, &through[0], tolerance(kind));
            hold("the weights' gradient", &seen.grad_weight, &through[1], tolerance(Kind::Float) * 5.0);
        }
    });
}

#[test]
fn nan_stays_nan() {
    let gate_up = Tensor::from_slice(&[f32::NAN, 1.0, 1.0, f32::NAN]).view([1, 4]);
    assert_eq!(swiglu(&gate_up, 7.0).isnan().sum(Kind::Int64).int64_value(&[]), 2);
    let (_, y, _) = rms_norm(&gate_up, None, &Tensor::ones([4], (Kind::Float, Device::Cpu)), 1e-5);
    assert_eq!(y.isnan().sum(Kind::Int64).int64_value(&[]), 4);
}

#[test]
fn rotation_and_its_inverse_match_libtorch() {
    in_both_kinds(|kind| {
        let (x, wide_x) = draw(&[2, 150, 3, 22], kind);
        let (cos, wide_cos) = draw(&[150, 1, 11], kind);
        let (sin, wide_sin) = draw(&[150, 1, 11], kind);
        for (back, wide_sin) in [(false, wide_sin.shallow_clone()), (true, -wide_sin)] {
            let halves = wide_x.chunk(2, -1);
            let expected = Tensor::cat(
                &[
                    &halves[0] * &wide_cos - &halves[1] * &wide_sin,
                    &halves[1] * &wide_cos + &halves[0] * &wide_sin,
                ],
                -1,
            );
            hold("the rotation", &rotate(&x, &cos, &sin, back), &expected, tolerance(kind));
        }
    });
}

#[test]
fn expert_rows_are_combined_per_token() {
    in_both_kinds(|kind| {
        let (tokens, active, width) = (130, 3, 40);
        let (rows, wide_rows) = draw(&[tokens * active, width], kind);
        let (base, wide_base) = draw(&[tokens, width], kind);
        let (weights, wide_weights) = draw(&[tokens, active], Kind::Float);
        let place = numbers(&[tokens * active]).argsort(0, false);
        let by_token = wide_rows.index_select(0, &place).view([tokens, active, width]);
        let weighted =
            (&by_token * wide_weights.unsqueeze(-1)).sum_dim_intlist([1i64].as_slice(), false, None);
        let seen = combine(Some(&base), &rows, &place, Some(&weights), active);
        hold("the weighted sum", &seen, &(wide_base + weighted), tolerance(kind));
        let sum = by_token.sum_dim_intlist([1i64].as_slice(), false, None);
        hold("the sum", &combine(None, &rows, &place, None, active), &sum, tolerance(kind));
    });
}

#[test]
fn products_of_few_rows_match_libtorch() {
    in_both_kinds(|kind| {
        for (count, width, out) in [(1, 1, 1), (1, 257, 300), (4, 64, 1000), (3, 130, 7)] {
            let (x, wide_x) = draw(&[count, width], kind);
            let (bias, wide_bias) = draw(&[out], Kind::Float);
            let (turned, wide_turned) = draw(&[out, width], kind);
            let (straight, wide_straight) = draw(&[width, out], kind);
            for (matrix, wide) in
                [(turned.transpose(0, 1), wide_turned.transpose(0, 1)), (straight, wide_straight)]
            {
                assert!(few_rows(&x, &matrix) || has_few_rows_gemm(&x));
                let mut y = Tensor::full([count, out], f64::NAN, (kind, Device::Cpu));
                few_rows_product(&mut y, &x, &matrix, None);
                hold("the product", &y, &wide_x.matmul(&wide), tolerance(kind));
                few_rows_product(&mut y, &x, &matrix, Some(&bias));
                let biased = wide_x.matmul(&wide) + &wide_bias;
                hold("with a bias", &y, &biased, tolerance(kind));
                let mut y = Tensor::full([count, out], f64::NAN, (Kind::Float, Device::Cpu));
                few_rows_product(&mut y, &x, &matrix, Some(&bias));
                hold("in f32", &y, &biased, tolerance(Kind::Float));
            }
        }
        let (x, _) = draw(&[FEW + 1, 8], kind);
        assert!(!few_rows(&x, &draw(&[8, 8], kind).0), "more rows are left to matrix products");
    });
}

#[test]
fn a_ring_buffer_keeps_the_last_tokens() {
    in_both_kinds(|kind| {
        let (batch, kv_heads, slots, dim) = (2, 3, 5, 4);
        let zeros = || Tensor::zeros([batch, kv_heads, slots, dim], (kind, Device::Cpu));
        let (mut keys, mut values) = (zeros(), zeros());
        let mut held = Tensor::full([batch, slots], i64::MAX, (Kind::Int64, Device::Cpu));
        // The second sequence is three tokens ahead of the first.
        let rows: Vec<[Tensor; 2]> =
            (0..9).map(|_| [(); 2].map(|()| draw(&[batch, kv_heads, dim], kind).0)).collect();
        for (time, [key, value]) in (0i64..).zip(&rows) {
            let positions = Tensor::from_slice(&[time, time + 3]);
            append((&mut keys, &mut values, &mut held), &positions, (key, value));
        }
        for (sequence, ahead) in [(0, 0), (1, 3)] {
            for time in 9 - slots..9 {
                let slot = (time + ahead) % slots;
                assert_eq!(held.int64_value(&[sequence, slot]), time + ahead);
                for (cache, new) in [(&keys, &rows[time as usize][0]), (&values, &rows[time as usize][1])] {
                    assert_eq!(cache.get(sequence).select(1, slot), new.get(sequence));
                }
            }
        }
    });
}

#[test]
fn decode_attention_matches_libtorch() {
    in_both_kinds(|kind| {
        let (batch, kv_heads, group, slots, dim) = (3, 2, 4, 21, 24);
        let (q, wide_q) = draw(&[batch, kv_heads * group, dim], kind);
        let (keys, wide_keys) = draw(&[batch, kv_heads, slots, dim], kind);
        let (values, wide_values) = draw(&[batch, kv_heads, slots, dim], kind);
        let (sinks, wide_sinks) = draw(&[kv_heads * group], Kind::Float);
        // A ring buffer: positions 30 to 50 out of order; each sequence is at a different one.
        let ids = (Kind::Int64, Device::Cpu);
        let held = (Tensor::arange(slots, ids) * 8).remainder(slots) + 30;
        let held = held.unsqueeze(0).expand([batch, slots], false).contiguous();
        let positions = Tensor::from_slice(&[30i64, 41, 50]);
        let grouped = wide_q.view([batch, kv_heads, group, dim]);
        let scores = grouped.matmul(&wide_keys.transpose(-2, -1)) / (dim as f64).sqrt();
        let hidden = held.gt_tensor(&positions.unsqueeze(1)).view([batch, 1, 1, slots]);
        let scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
        let sink = wide_sinks.view([1, kv_heads, group, 1]).expand([batch, kv_heads, group, 1], false);
        let shares = Tensor::cat(&[scores, sink], -1).softmax(-1, None::<Kind>).narrow(-1, 0, slots);
        let expected = shares.matmul(&wide_values).reshape([batch, kv_heads * group * dim]);
        hold(
            "attention",
            &decode_attention(&q, (&keys, &values), &held, &positions, &sinks),
            &expected,
            tolerance(kind),
        );
    });
}

/// Kernels reject outputs that share memory with inputs.
mod apart {
    use super::*;

    fn rows(shape: &[i64]) -> Tensor {
        draw(shape, Kind::Float).0
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn a_norm_weight_cannot_alias_its_gradient() {
        let (x, weight) = (rows(&[3, 16]), rows(&[16]));
        let (_, _, inverse) = rms_norm(&x, None, &weight, 1e-5);
        let _ = rms_norm_backward(&x, None, &x, &weight, &inverse, &mut weight.shallow_clone());
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn sinks_cannot_alias_their_gradient() {
        let [q, k, v] = [(); 3].map(|()| rows(&[1, 5, 2, 8]));
        let sinks = rows(&[2]);
        let documents = [Document { row: 0, tokens: 0..5 }];
        let flash = Flash { q: &q, k: &k, v: &v, sinks: &sinks, documents: &documents, window: None };
        let (output, logsumexp) = flash.forward();
        let _ = flash.backward(&q, (&output, &logsumexp), &mut sinks.shallow_clone());
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn a_product_of_few_rows_cannot_alias_its_factor() {
        let x = rows(&[2, 16]);
        few_rows_product(&mut x.shallow_clone(), &x, &rows(&[16, 16]), None);
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn a_bf16_product_of_few_rows_cannot_alias_its_factor() {
        let x = draw(&[2, 16], Kind::BFloat16).0;
        few_rows_product(&mut x.shallow_clone(), &x, &draw(&[16, 16], Kind::BFloat16).0, None);
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn an_int8_product_cannot_alias_its_factor() {
        let x = rows(&[2, 16]);
        int8_product(&mut x.shallow_clone(), &x, &to_int8(&rows(&[16, 16])), None);
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn cached_keys_cannot_alias_cached_values() {
        let mut keys = rows(&[1, 2, 4, 8]);
        let mut values = keys.shallow_clone();
        let mut held = Tensor::zeros([1, 4], (Kind::Int64, Device::Cpu));
        let (new, positions) = (rows(&[1, 2, 8]), Tensor::from_slice(&[0i64]));
        append((&mut keys, &mut values, &mut held), &positions, (&new, &new));
    }

    #[test]
    #[should_panic(expected = "shares memory")]
    fn logits_cannot_alias_their_exponentials() {
        let logits = rows(&[4, 8]);
        OnlineSoftmax::new(8).exponentiate::<f32>(&logits, &mut logits.shallow_clone(), &[]);
    }
}

#[test]
fn elements_left_out_of_an_online_softmax_count_in_its_sum() {
    let logits = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]);
    let mut exponentials = logits.zeros_like();
    let mut softmax = OnlineSoftmax::new(2);
    let (factors, left_out) = softmax.exponentiate::<f32>(&logits, &mut exponentials, &[(1, 0)]);
    assert_eq!((factors, left_out), (vec![0.0; 2], vec![3.0]));
    assert_eq!(exponentials.double_value(&[1, 0]), 0.0);
    assert_eq!(exponentials.double_value(&[1, 1]), 1.0);
    assert!(softmax.sum().iter().all(|sum| (sum - 1.135_335_28).abs() < 1e-6));
}

#[test]
fn an_online_softmax_matches_softmax() {
    fn tiles<T: Scalar>(x: &Tensor, softmax: &mut OnlineSoftmax, kind: Kind) -> Tensor {
        let tiles = [(0, 1), (1, 450), (451, 449)].map(|(start, len)| {
            let logits = x.narrow(0, start, len);
            let mut tile = Tensor::zeros(logits.size(), (kind, Device::Cpu));
            softmax.exponentiate::<T>(&logits, &mut tile, &[]);
            tile.to_kind(Kind::Double) * Tensor::from_slice(softmax.max()).exp()
        });
        Tensor::cat(&tiles, 0)
    }
    in_both_kinds(|kind| {
        let x = numbers(&[900, 70]) * 20.0;
        let (x, wide) = (x.to_kind(Kind::Float), x.to_kind(Kind::Float).to_kind(Kind::Double));
        let mut softmax = OnlineSoftmax::new(70);
        let tiles = match kind {
            Kind::Float => tiles::<f32>(&x, &mut softmax, kind),
            _ => tiles::<half::bf16>(&x, &mut softmax, kind),
        };
        let log_sum: Vec<f64> = softmax.log_sum().collect();
        hold("the logarithm", &Tensor::from_slice(&log_sum), &wide.logsumexp([0i64].as_slice(), false), 1e-6);
        let probabilities = tiles / Tensor::from_slice(&log_sum).exp();
        hold("the softmax", &probabilities, &wide.softmax(0, None::<Kind>), tolerance(kind));
    });
}

#[test]
fn sum_of_squares_matches_libtorch() {
    for len in [0, 1, 4095, 300_000] {
        let (x, wide) = draw(&[len], Kind::Float);
        let expected = wide.square().sum(Kind::Double).double_value(&[]);
        assert!((sum_of_squares(&x) - expected).abs() <= 1e-7 * expected, "{len}");
    }
}

#[test]
fn routing_selects_and_weights_the_largest_logits() {
    for (tokens, experts, active) in [(1, 4, 2), (300, 32, 4), (7, 5, 5)] {
        let (logits, wide) = draw(&[tokens, experts], Kind::Float);
        let (chosen, weights, probabilities) = route(&logits, active, None);
        let (largest, places) = wide.topk(active, -1, true, true);
        assert_eq!(chosen, places);
        hold("the weights", &weights, &largest.softmax(-1, None::<Kind>), 1e-6);
        hold("the probabilities", &probabilities, &wide.softmax(-1, None::<Kind>), 1e-6);
        // Experts chosen in advance, in any order.
        let turned = places.flip([-1]);
        let (again, weights, _) = route(&logits, active, Some(&turned));
        assert_eq!(again, turned);
        hold("the weights", &weights, &largest.flip([-1]).softmax(-1, None::<Kind>), 1e-6);
    }
}

#[test]
fn ties_go_to_the_first_logit() {
    let logits = Tensor::from_slice(&[1f32, 2.0, 2.0, 1.0, f32::NAN, f32::NEG_INFINITY]).view([1, 6]);
    let (chosen, ..) = route(&logits, 6, None);
    assert_eq!(Vec::<i64>::try_from(chosen.view([6])).unwrap(), [4, 1, 2, 0, 3, 5]);
}

#[test]
fn likelihoods_are_relative_to_the_largest() {
    for count in [1, 15, 16, 1000] {
        let (logits, wide) = draw(&[count], Kind::Float);
        let logits = to_vec::<f32>(&logits);
        let max = max(&logits);
        assert_eq!(f64::from(max), wide.max().double_value(&[]));
        let mut seen = vec![0.0; count as usize];
        likelihoods(&logits, max, 0.7, &mut seen);
        hold("the likelihoods", &Tensor::from_slice(&seen), &((wide - f64::from(max)) / 0.7).exp(), 1e-6);
    }
    assert!(max(&[1.0, f32::NAN, 2.0]).is_nan());
}

#[test]
fn int8_rounds_to_nearest() {
    in_both_kinds(|kind| {
        let (matrix, wide) = draw(&[30, 67], kind);
        let _ = matrix.get(3).zero_();
        let _ = wide.get(3).zero_();
        let back = from_int8(&to_int8(&matrix)).to_kind(Kind::Double);
        let steps = wide.abs().amax([-1i64].as_slice(), true) / 127.0;
        let off = (&back - &wide).abs() - steps * 0.5;
        assert!(off.max().double_value(&[]) < 1e-6, "not rounded to nearest");
        assert_eq!(back.get(3).abs().max().double_value(&[]), 0.0);
    });
}

#[test]
fn products_with_int8_matrices() {
    in_both_kinds(|kind| {
        for (count, width, out) in [(1, 1, 1), (1, 64, 1000), (1, 257, 300), (5, 130, 7), (16, 512, 90)] {
            let (x, wide_x) = draw(&[count, width], kind);
            let (bias, wide_bias) = draw(&[out], Kind::Float);
            let packed = to_int8(&draw(&[out, width], kind).0);
            let expected = wide_x.matmul(&from_int8(&packed).to_kind(Kind::Double).transpose(0, 1));
            for into in [kind, Kind::Float] {
                let mut y = Tensor::full([count, out], f64::NAN, (into, Device::Cpu));
                int8_product(&mut y, &x, &packed, None);
                hold("the product", &y, &expected, tolerance(into));
                int8_product(&mut y, &x, &packed, Some(&bias));
                hold("with a bias", &y, &(&expected + &wide_bias), tolerance(into));
                // Not contiguous: uses the portable loop.
                let mut y = y.zeros_like().transpose(0, 1).contiguous().transpose(0, 1);
                int8_product(&mut y, &x, &packed, Some(&bias));
                hold("with the portable loop", &y, &(&expected + &wide_bias), tolerance(into));
            }
        }
    });
}
