//! Selects experts and computes their weights from router logits.
//!
//! Shapes: N tokens, E experts, A active experts.

use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

use super::exp::exp;
use super::partition::Rows;
use oss_torch::{Slices, parallel_each};

/// Selects the `active` largest of each token's logits `[N, E]` (f32, on the CPU), largest first and ties by index, or
/// the experts `chosen` in advance. Returns the experts (i64 `[N, A]`), the softmax over their logits (f32 `[N, A]`),
/// and the softmax over all logits (f32 `[N, E]`).
pub fn route(logits: &Tensor, active: i64, chosen: Option<&Tensor>) -> (Tensor, Tensor, Tensor) {
    let (tokens, num_experts, count) = (logits.size()[0], logits.size()[1] as usize, active as usize);
    let empty = |width: i64, kind: Kind| Tensor::empty([tokens, width], (kind, Device::Cpu));
    let mut experts = chosen.map_or_else(|| empty(active, Kind::Int64), Tensor::copy);
    let mut weights = empty(active, Kind::Float);
    let mut probabilities = empty(num_experts as i64, Kind::Float);
    let logits = logits.contiguous();
    let rows = Rows::new(tokens as usize, num_experts);
    let is_chosen = chosen.is_some();
    // SAFETY: nothing else accesses the tensors until the loop is over.
    let slices = unsafe { Slices::new() };
    let choices = rows.cut_mut(slices.of_mut::<i64>(&mut experts), count);
    let choices = choices.zip(rows.cut_mut(slices.of_mut::<f32>(&mut weights), count));
    let tasks = rows.cut(slices.of::<f32>(&logits), num_experts).zip(choices);
    let tasks = tasks.zip(rows.cut_mut(slices.of_mut::<f32>(&mut probabilities), num_experts)).collect();
    parallel_each(tasks, |((logits, (experts, weights)), probabilities)| {
        let of_token = experts.chunks_exact_mut(count).zip(weights.chunks_exact_mut(count));
        let all = logits.chunks_exact(num_experts).zip(probabilities.chunks_exact_mut(num_experts));
        for ((logits, probabilities), (experts, weights)) in all.zip(of_token) {
            if !is_chosen {
                choose(logits, experts);
            }
            for (weight, expert) in weights.iter_mut().zip(&*experts) {
                *weight = logits[*expert as usize];
            }
            softmax(weights);
            probabilities.copy_from_slice(logits);
            softmax(probabilities);
        }
    });
    (experts, weights, probabilities)
}

/// Indices of the largest `logits`, in descending order.
fn choose(logits: &[f32], experts: &mut [i64]) {
    for rank in 0..experts.len() {
        let (before, rest) = experts.split_at_mut(rank);
        let left = (0..logits.len()).filter(|&expert| !before.contains(&(expert as i64)));
        // NaN counts as the largest value, as in libtorch.
        let is_larger = |x: f32, y: f32| x > y || (x.is_nan() && !y.is_nan());
        let best =
            left.reduce(|best, expert| if is_larger(logits[expert], logits[best]) { expert } else { best });
        rest[0] = best.unwrap_or_else(|| unreachable!("fewer experts than active ones")) as i64;
    }
}

/// Applies softmax to `numbers`, in place.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn softmax(numbers: &mut [f32]) {
    let max = numbers.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    numbers.iter_mut().for_each(|x| *x = exp(*x - max));
    let total: f32 = numbers.iter().sum();
    numbers.iter_mut().for_each(|x| *x /= total);
}
