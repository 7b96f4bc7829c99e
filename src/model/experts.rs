//! The experts: tokens sorted by expert, two grouped products around gpt-oss's clamped SwiGLU, and the weighted sum.
//!
//! N tokens, D hidden, E experts, A active experts, F expert width, R rows sorted by expert: N*A, perhaps rounded up.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::linear::{accumulate_product, product_into, product_plus_into, sum_rows};
use super::router::Routing;
use crate::{kernels, torch};

/// Slope of the sigmoid in the gate.
const ALPHA: f64 = 1.702;

/// Weights of a layer's experts, or their gradients.
#[derive(Debug)]
pub struct Weights {
    /// `[E, D, 2F]`, gate and up interleaved in the last axis.
    pub gate_up: Tensor,
    /// `[E, 2F]`.
    pub gate_up_bias: Tensor,
    /// `[E, F, D]`.
    pub down: Tensor,
    /// `[E, D]`.
    pub down_bias: Tensor,
}

/// The rows of all tokens' choices, sorted by expert; on the host, more rows may follow that nobody reads.
#[derive(Debug)]
struct Groups {
    /// Token of each sorted row, i64 `[R]`.
    token: Tensor,
    /// Choice (token * A + rank) of each sorted row, i64 `[R]`.
    order: Tensor,
    /// Sorted row of each choice, i64 `[N*A]`.
    inverse: Tensor,
    extent: Extent,
}

/// Where each expert's rows lie.
#[derive(Debug)]
enum Extent {
    /// On the host, where the CPU loops over the experts that have rows.
    Host(Vec<Group>),
    /// On the device, for grouped products: the end of each expert's rows, i32 `[E]`, and the expert of each row, i64 `[R]`.
    Device { ends: Tensor, expert: Tensor },
}

/// The rows of one expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    expert: i64,
    start: i64,
    len: i64,
}

/// What the backward pass needs beside the input. The hidden rows are not: making them again is cheap.
#[derive(Debug)]
pub struct Saved {
    groups: Groups,
    gate_up: Tensor,
    output: Tensor,
}

impl Groups {
    fn new(routing: &Routing, num_experts: i64, kind: Kind) -> Self {
        let choices = routing.experts.flatten(0, -1); // [N*A]
        if choices.device().is_cuda() {
            return Self::on_device(&choices, routing.experts.size()[1], num_experts);
        }
        Self::on_host(torch::i64_slice(&choices), routing.experts.size()[1], num_experts, kind)
    }

    fn on_device(choices: &Tensor, active: i64, num_experts: i64) -> Self {
        let (expert, order) = choices.sort_stable(true, 0, false);
        let token = order.divide_scalar_mode(active, "floor");
        let inverse = order.argsort(0, false);
        // `bincount` would wait for the device, to see the largest number.
        let experts = Tensor::arange(num_experts, (Kind::Int64, choices.device()));
        let ends = experts.searchsorted::<&Tensor>(&expert, true, true, "right", None); // i32 [E]
        Self { token, order, inverse, extent: Extent::Device { ends, expert } }
    }

    /// A counting sort.
    fn on_host(choices: &[i64], active: i64, num_experts: i64, kind: Kind) -> Self {
        let mut starts = vec![0; num_experts as usize + 1];
        choices.iter().for_each(|&expert| starts[expert as usize + 1] += 1);
        for expert in 0..num_experts as usize {
            starts[expert + 1] += starts[expert];
        }
        let groups: Vec<Group> = (0..num_experts)
            .map(|expert| (expert, starts[expert as usize], starts[expert as usize + 1]))
            .filter(|(_, start, end)| start < end)
            .map(|(expert, start, end)| Group { expert, start, len: end - start })
            .collect();
        let last = groups.iter().map(|group| group.start + group.rounded(kind)).max().unwrap_or(0);
        let mut order = vec![0; last as usize];
        let inverse: Vec<i64> = (choices.iter().enumerate())
            .map(|(choice, &expert)| {
                let place = starts[expert as usize];
                starts[expert as usize] += 1;
                order[place as usize] = choice as i64;
                place
            })
            .collect();
        let token: Vec<i64> = order.iter().map(|choice| choice / active).collect();
        let [token, order, inverse] = [token, order, inverse].map(|ids| Tensor::from_slice(&ids));
        Self { token, order, inverse, extent: Extent::Host(groups) }
    }

    /// `x [R, in]` times each row's own expert of `weight [E, in, out]`, plus its bias `[E, out]`.
    fn product(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match &self.extent {
            Extent::Device { ends, expert } if groupable(x, weight) => {
                let y = x.internal_grouped_mm(weight, Some(ends), None, None);
                match bias {
                    Some(bias) => y + bias.to_kind(x.kind()).index_select(0, expert),
                    None => y,
                }
            }
            _ => {
                let y = Tensor::empty([x.size()[0], weight.size()[2]], (x.kind(), x.device()));
                for group in self.groups() {
                    // Rows of the next experts that are computed along are overwritten when it is their turn.
                    let len = group.rounded(x.kind()).min(x.size()[0] - group.start);
                    let (mut out, rows) = (y.narrow(0, group.start, len), x.narrow(0, group.start, len));
                    let weight = weight.get(group.expert);
                    match bias {
                        Some(bias) => product_plus_into(&mut out, &rows, &weight, &bias.get(group.expert)),
                        None => product_into(&mut out, &rows, &weight),
                    }
                }
                y
            }
        }
    }

    /// Adds `x^T @ grad` of each expert's rows to `grad_weight [E, in, out]` and the sums of `grad` to `grad_bias`.
    fn accumulate(&self, x: &Tensor, grad: &Tensor, grad_weight: &Tensor, grad_bias: &mut Tensor) {
        if let Extent::Device { ends, expert } = &self.extent
            && groupable(x, grad_weight)
        {
            let mut grad_weight = grad_weight.shallow_clone();
            let _ = grad_weight.g_add_(&x.transpose(0, 1).internal_grouped_mm(grad, Some(ends), None, None));
            // A product with the one-hot choice sums each expert's rows in a fixed order.
            let one_hot = expert.one_hot(grad_bias.size()[0]).to_kind(grad.kind());
            let _ = grad_bias.g_add_(&one_hot.transpose(0, 1).matmul(grad));
            return;
        }
        for group in self.groups() {
            let mut grad_weight = grad_weight.get(group.expert);
            let grads = grad.narrow(0, group.start, group.len);
            let _ = grad_bias.get(group.expert).g_add_(&sum_rows(&grads, grad_bias.kind()));
            let whole = group.whole(x.kind());
            for (start, len) in [(0, whole), (whole, group.len - whole)] {
                if len == 0 {
                    continue;
                }
                let [rows, grads] = [x, grad].map(|x| x.narrow(0, group.start + start, len));
                // The odd rows in f32, which has no kernels to compile.
                let [rows, grads] = match start == whole && x.kind() == Kind::BFloat16 {
                    true => [rows, grads].map(|x| x.to_kind(Kind::Float)),
                    false => [rows, grads],
                };
                accumulate_product(&mut grad_weight, &rows.transpose(0, 1), &grads);
            }
        }
    }

    fn groups(&self) -> Vec<Group> {
        match &self.extent {
            Extent::Host(groups) => groups.clone(),
            Extent::Device { ends, .. } => {
                let host = ends.to_device(tch::Device::Cpu).to_kind(Kind::Int64);
                let ends = torch::i64_slice(&host);
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let extents = starts.zip(ends).enumerate().filter(|(_, (start, end))| start < end);
                extents
                    .map(|(expert, (start, &end))| Group { expert: expert as i64, start, len: end - start })
                    .collect()
            }
        }
    }

    /// Sorted rows `[R, ..]` of tokens back to each token's A rows: `[N, A, ..]`.
    fn by_token(&self, x: &Tensor, active: i64) -> Tensor {
        let rows = x.index_select(0, &self.inverse);
        rows.view([-1, active, x.size()[1]])
    }
}

impl Group {
    /// Numbers of rows come in steps of a sixteenth of their size, at least so many.
    const LEAST_STEP: i64 = 32;

    /// oneDNN, which multiplies bf16 on the CPU, compiles a kernel for each number of rows, which takes longer than most
    /// products; experts have another number of rows in every step.
    fn step(self, kind: Kind) -> i64 {
        if kind != Kind::BFloat16 || self.len <= kernels::FEW {
            return 1;
        }
        let size = self.len.max(1) as u64;
        (size.next_power_of_two() as i64 / 16).max(Self::LEAST_STEP)
    }

    /// The number of rows, rounded up.
    fn rounded(self, kind: Kind) -> i64 {
        let step = self.step(kind);
        (self.len + step - 1) / step * step
    }

    /// The number of rows, rounded down.
    fn whole(self, kind: Kind) -> i64 {
        self.len / self.step(kind) * self.step(kind)
    }
}

/// Whether the device's grouped product takes these: bf16, and rows of a multiple of 16 bytes.
fn groupable(x: &Tensor, weight: &Tensor) -> bool {
    let width = |tensor: &Tensor| tensor.size().last().copied().unwrap_or(0) * 2 % 16 == 0;
    x.kind() == Kind::BFloat16 && width(x) && width(weight)
}

/// `base [N, D]` plus the weighted sum of the outputs of each row's experts, whose input is `x [N, D]`.
pub fn forward(
    base: &Tensor,
    x: &Tensor,
    weights: &Weights,
    routing: &Routing,
    limit: f64,
) -> Result<(Tensor, Saved)> {
    let active = routing.experts.size()[1];
    let groups = Groups::new(routing, weights.gate_up.size()[0], x.kind());
    let rows = x.index_select(0, &groups.token); // [R, D]
    let gate_up = groups.product(&rows, &weights.gate_up, Some(&weights.gate_up_bias)); // [R, 2F]
    let hidden = swiglu(&gate_up, limit)?; // [R, F]
    let output = groups.product(&hidden, &weights.down, Some(&weights.down_bias)); // [R, D]
    let y = if kernels::take(x) {
        kernels::combine(Some(base), &output, &groups.inverse, Some(&routing.weights), active)
    } else {
        let share = routing.weights.to_kind(x.kind()).unsqueeze(1); // [N, 1, A]
        base + share.matmul(&groups.by_token(&output, active)).squeeze_dim(1)
    };
    Ok((y, Saved { groups, gate_up, output }))
}

/// Gradients of `x` (through the experts alone) and of the routing weights `[N, A]`; the weights' are added to `grads`.
pub fn backward(
    grad: &Tensor,
    x: &Tensor,
    weights: &Weights,
    routing: &Routing,
    saved: &Saved,
    limit: f64,
    grads: &mut Weights,
) -> Result<(Tensor, Tensor)> {
    let active = routing.experts.size()[1];
    let groups = &saved.groups;
    let (grad_output, grad_share) = combine_backward(grad, routing, saved, active); // [R, D], [N, A]
    let hidden = swiglu(&saved.gate_up, limit)?; // [R, F]
    groups.accumulate(&hidden, &grad_output, &grads.down, &mut grads.down_bias);
    drop(hidden);
    let grad_hidden = groups.product(&grad_output, &weights.down.transpose(1, 2), None); // [R, F]
    let grad_gate_up = swiglu_backward(&grad_hidden, &saved.gate_up, limit)?; // [R, 2F]
    let rows = x.index_select(0, &groups.token);
    groups.accumulate(&rows, &grad_gate_up, &grads.gate_up, &mut grads.gate_up_bias);
    let grad_rows = groups.product(&grad_gate_up, &weights.gate_up.transpose(1, 2), None); // [R, D]
    let grad_x = if kernels::take(x) {
        kernels::combine(None, &grad_rows, &groups.inverse, None, active)
    } else {
        groups.by_token(&grad_rows, active).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)
    };
    Ok((grad_x, grad_share))
}

/// The gradients of the experts' outputs `[R, D]` and of the routing weights `[N, A]`.
fn combine_backward(grad: &Tensor, routing: &Routing, saved: &Saved, active: i64) -> (Tensor, Tensor) {
    let groups = &saved.groups;
    if kernels::take(grad) {
        let (grad_output, grad_share) =
            kernels::combine_backward(grad, &saved.output, &groups.token, &groups.order, &routing.weights);
        return (grad_output, grad_share.index_select(0, &groups.inverse).view([-1, active]));
    }
    let by_token = groups.by_token(&saved.output, active); // [N, A, D]
    let grad_share = by_token.matmul(&grad.unsqueeze(-1)).squeeze_dim(-1).to_kind(routing.weights.kind()); // [N, A]
    let share = routing.weights.flatten(0, -1).index_select(0, &groups.order).to_kind(grad.kind()); // [R]
    (grad.index_select(0, &groups.token) * share.unsqueeze(-1), grad_share)
}

/// `(up + 1) * gate * sigmoid(ALPHA * gate)` with `gate` clamped above and `up` on both sides.
fn swiglu(gate_up: &Tensor, limit: f64) -> Result<Tensor> {
    if kernels::take(gate_up) {
        return Ok(kernels::swiglu(gate_up, limit));
    }
    let (gate, up) = halves(gate_up)?;
    let gate = gate.clamp_max(limit);
    let up = up.clamp(-limit, limit);
    Ok((up + 1.0) * &gate * (gate * ALPHA).sigmoid())
}

fn swiglu_backward(grad: &Tensor, gate_up: &Tensor, limit: f64) -> Result<Tensor> {
    if kernels::take(gate_up) {
        return Ok(kernels::swiglu_backward(grad, gate_up, limit));
    }
    let (raw_gate, raw_up) = halves(gate_up)?;
    let gate = raw_gate.clamp_max(limit);
    let up = raw_up.clamp(-limit, limit) + 1.0;
    let sigmoid = (&gate * ALPHA).sigmoid();
    let glu = &gate * &sigmoid;
    // d(glu)/d(gate) = s + ALPHA * gate * s * (1 - s)
    let slope = &sigmoid + &glu * (1.0 - &sigmoid) * ALPHA;
    let grad_gate = grad * up * slope * raw_gate.le(limit);
    let grad_up = grad * glu * raw_up.ge(-limit) * raw_up.le(limit);
    Ok(Tensor::stack(&[grad_gate, grad_up], -1).view_as(gate_up))
}

/// Gate and up of interleaved columns `[R, 2F]`.
fn halves(gate_up: &Tensor) -> Result<(Tensor, Tensor)> {
    let (r, width) = gate_up.size2()?;
    let pairs = gate_up.view([r, width / 2, 2]);
    Ok((pairs.select(-1, 0), pairs.select(-1, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The device's way of sorting, on the CPU, against the host's.
    #[test]
    fn both_ways_of_sorting_give_the_same_groups() {
        // Expert 0 has no rows, nor have the last two.
        let choices = [3i64, 1, 1, 4, 3, 2, 4, 3];
        let device = Groups::on_device(&Tensor::from_slice(&choices), 2, 7);
        let host = Groups::on_host(&choices, 2, 7, Kind::Float);
        assert_eq!(device.groups(), host.groups());
        for (seen, wanted) in
            [(device.token, host.token), (device.order, host.order), (device.inverse, host.inverse)]
        {
            assert_eq!(seen, wanted);
        }
        let Extent::Device { ends, .. } = device.extent else { unreachable!("sorted for a device") };
        assert_eq!((ends.kind(), Vec::try_from(ends).unwrap()), (Kind::Int, vec![0i32, 2, 3, 6, 8, 8, 8]));
    }
}
