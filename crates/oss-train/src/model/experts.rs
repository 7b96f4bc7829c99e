//! The experts: sort tokens by expert, apply two grouped products around gpt-oss's clamped SwiGLU, and combine the
//! outputs in a weighted sum.
//!
//! N tokens, D hidden, E experts, A active experts, F expert width, R = N*A rows sorted by expert.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::linear::{accumulate_product, grouped_product_into, product, sum_rows};
use super::router::Routing;
use super::wide;
use oss_kernels::SwigluBackward;
use oss_torch::Group;

/// Slope of the gate's sigmoid.
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

/// The (token, expert) choices of all tokens, sorted by expert.
#[derive(Debug)]
struct Groups {
    /// Token of each sorted row, i64 `[R]`.
    token: Tensor,
    /// Choice (token * A + rank) of each sorted row, i64 `[R]`.
    order: Tensor,
    /// Sorted row of each choice, i64 `[N*A]`.
    inverse: Tensor,
    extent: GroupOffsets,
}

/// The range of each expert's rows.
#[derive(Debug)]
enum GroupOffsets {
    /// On the host: the CPU loops over the experts that have rows.
    Host(Vec<Group>),
    /// On the device, for grouped products: the end offset of each expert's rows, i32 `[E]`, and the expert of each
    /// row, i64 `[R]`.
    Device { ends: Tensor, expert: Tensor },
}

/// What the backward pass needs besides the input: the first product, from which the rest is cheap to recompute. As in
/// SonicMoE (arXiv:2512.14080), the gradients of the routing weights do not need the experts' outputs:
/// `<grad, hidden @ down>` equals `<grad @ down^T, hidden>`, and `grad @ down^T` is computed anyway.
#[derive(Debug)]
pub struct Saved {
    groups: Groups,
    gate_up: Tensor,
}

impl Groups {
    fn new(routing: &Routing, num_experts: i64) -> Self {
        let choices = routing.experts.flatten(0, -1); // [N*A]
        if choices.device().is_cuda() {
            return Self::on_device(&choices, routing.experts.size()[1], num_experts);
        }
        Self::on_host(&oss_torch::to_vec::<i64>(&choices), routing.experts.size()[1], num_experts)
    }

    fn on_device(choices: &Tensor, active: i64, num_experts: i64) -> Self {
        let (expert, order) = choices.sort_stable(true, 0, false);
        let token = order.divide_scalar_mode(active, "floor");
        let inverse = order.argsort(0, false);
        // `bincount` would synchronize with the device to find the maximum.
        let experts = Tensor::arange(num_experts, (Kind::Int64, choices.device()));
        let ends = experts.searchsorted::<&Tensor>(&expert, true, true, "right", None); // i32 [E]
        Self { token, order, inverse, extent: GroupOffsets::Device { ends, expert } }
    }

    /// A counting sort.
    fn on_host(choices: &[i64], active: i64, num_experts: i64) -> Self {
        let mut starts = vec![0; num_experts as usize + 1];
        choices.iter().for_each(|&expert| starts[expert as usize + 1] += 1);
        for expert in 0..num_experts as usize {
            starts[expert + 1] += starts[expert];
        }
        let groups: Vec<Group> = (0..num_experts)
            .map(|expert| (expert, starts[expert as usize], starts[expert as usize + 1]))
            .filter(|(_, start, end)| start < end)
            .map(|(expert, start, end)| Group { index: expert, start, len: end - start })
            .collect();
        let mut order = vec![0; choices.len()];
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
        Self { token, order, inverse, extent: GroupOffsets::Host(groups) }
    }

    /// Multiplies each row of `x [R, in]` by its expert's matrix in `weight [E, in, out]` and adds its bias `[E, out]`.
    fn product(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match &self.extent {
            GroupOffsets::Device { ends, expert } if groupable(x, weight) => {
                let y = x.internal_grouped_mm(weight, Some(ends), None, None);
                match bias {
                    Some(bias) => y + bias.to_kind(x.kind()).index_select(0, expert),
                    None => y,
                }
            }
            _ => {
                let mut y = Tensor::empty([x.size()[0], weight.size()[2]], (x.kind(), x.device()));
                grouped_product_into(&mut y, x, weight, bias, &self.groups());
                y
            }
        }
    }

    /// Accumulates `x^T @ grad` over each expert's rows into `grad_weight [E, in, out]`.
    fn accumulate(&self, x: &Tensor, grad: &Tensor, grad_weight: &Tensor) {
        if let GroupOffsets::Device { ends, .. } = &self.extent
            && groupable(x, grad)
        {
            let mut grad_weight = grad_weight.shallow_clone();
            let _ = grad_weight.g_add_(&x.transpose(0, 1).internal_grouped_mm(grad, Some(ends), None, None));
            return;
        }
        for group in self.groups() {
            let [rows, grads] = [x, grad].map(|x| x.narrow(0, group.start, group.len));
            accumulate_product(&mut grad_weight.get(group.index), &rows.transpose(0, 1), &grads);
        }
    }

    /// Accumulates the sum of each expert's rows of `grad` into `grad_bias [E, out]`.
    fn accumulate_sums(&self, grad: &Tensor, grad_bias: &mut Tensor) {
        match &self.extent {
            GroupOffsets::Device { expert, .. } => {
                // A product with the one-hot matrix sums each expert's rows in a fixed order.
                let one_hot = expert.one_hot(grad_bias.size()[0]).to_kind(grad.kind());
                let _ = grad_bias.g_add_(&one_hot.transpose(0, 1).matmul(grad));
            }
            GroupOffsets::Host(groups) => {
                for group in groups {
                    let grads = grad.narrow(0, group.start, group.len);
                    let _ = grad_bias.get(group.index).g_add_(&sum_rows(&grads, grad_bias.kind()));
                }
            }
        }
    }

    fn groups(&self) -> Vec<Group> {
        match &self.extent {
            GroupOffsets::Host(groups) => groups.clone(),
            GroupOffsets::Device { ends, .. } => {
                let host = ends.to_device(tch::Device::Cpu).to_kind(Kind::Int64);
                let ends = oss_torch::to_vec::<i64>(&host);
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let extents = starts.zip(&ends).enumerate().filter(|(_, (start, end))| start < end);
                extents
                    .map(|(expert, (start, &end))| Group { index: expert as i64, start, len: end - start })
                    .collect()
            }
        }
    }

    /// Regroups sorted rows `[R, ..]` by token: `[N, A, ..]`.
    fn by_token(&self, x: &Tensor, active: i64) -> Tensor {
        let rows = x.index_select(0, &self.inverse);
        rows.view([-1, active, x.size()[1]])
    }
}

/// Whether the device's grouped product supports these: bf16, with rows of a multiple of 16 bytes.
fn groupable(x: &Tensor, weight: &Tensor) -> bool {
    let width = |tensor: &Tensor| tensor.size().last().copied().unwrap_or(0) * 2 % 16 == 0;
    x.kind() == Kind::BFloat16 && width(x) && width(weight)
}

/// Returns `base [N, D]` plus the weighted sum of the outputs of each row's experts, whose input is `x [N, D]`.
pub fn forward(
    base: &Tensor,
    x: &Tensor,
    weights: &Weights,
    routing: &Routing,
    limit: f64,
) -> Result<(Tensor, Saved)> {
    let active = routing.experts.size()[1];
    let groups = Groups::new(routing, weights.gate_up.size()[0]);
    let rows = x.index_select(0, &groups.token); // [R, D]
    let gate_up = groups.product(&rows, &weights.gate_up, Some(&weights.gate_up_bias)); // [R, 2F]
    let hidden = swiglu(&gate_up, limit)?; // [R, F]
    let output = groups.product(&hidden, &weights.down, Some(&weights.down_bias)); // [R, D]
    let y = if oss_kernels::supports(x) {
        oss_kernels::combine(Some(base), &output, &groups.inverse, Some(&routing.weights), active)
    } else {
        let share = routing.weights.to_kind(x.kind()).unsqueeze(1); // [N, 1, A]
        base + share.matmul(&groups.by_token(&output, active)).squeeze_dim(1)
    };
    Ok((y, Saved { groups, gate_up }))
}

/// Returns the gradients of `x` (through the experts only) and of the routing weights `[N, A]`; accumulates the
/// experts' gradients into `grads`.
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
    let grad_rows = grad.index_select(0, &groups.token); // [R, D]
    let grad_hidden = groups.product(&grad_rows, &weights.down.transpose(1, 2), None); // [R, F]
    let share = routing.weights.flatten(0, -1).index_select(0, &groups.order); // [R]
    let SwigluBackward { weighted, grad_gate_up, grad_weight } =
        swiglu_backward(&grad_hidden, &saved.gate_up, &share, limit)?;
    drop(grad_hidden);
    groups.accumulate(&weighted, &grad_rows, &grads.down);
    drop((weighted, grad_rows));
    let through_bias = bias_backward(grad, &weights.down_bias, routing, &mut grads.down_bias);
    let grad_share = grad_weight.index_select(0, &groups.inverse).view([-1, active]) + through_bias; // [N, A]

    let rows = x.index_select(0, &groups.token);
    groups.accumulate(&rows, &grad_gate_up, &grads.gate_up);
    groups.accumulate_sums(&grad_gate_up, &mut grads.gate_up_bias);
    let grad_rows = groups.product(&grad_gate_up, &weights.gate_up.transpose(1, 2), None); // [R, D]
    let grad_x = if oss_kernels::supports(x) {
        oss_kernels::combine(None, &grad_rows, &groups.inverse, None, active)
    } else {
        groups.by_token(&grad_rows, active).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)
    };
    Ok((grad_x, grad_share))
}

/// Returns what the output bias `[E, D]` contributes to the gradients of the routing weights `[N, A]`; accumulates the
/// bias's own gradient into `grad_bias`. Both are computed as dense products of all tokens with all experts.
fn bias_backward(grad: &Tensor, bias: &Tensor, routing: &Routing, grad_bias: &mut Tensor) -> Tensor {
    let grad = wide(grad); // [N, D]
    let share = routing.probabilities.zeros_like().scatter_(-1, &routing.experts, &routing.weights); // [N, E]
    accumulate_product(grad_bias, &share.transpose(0, 1), &grad);
    product(&grad, &bias.transpose(0, 1)).gather(-1, &routing.experts, false)
}

/// `(up + 1) * gate * sigmoid(ALPHA * gate)`, with `gate` clamped from above and `up` on both sides.
fn swiglu(gate_up: &Tensor, limit: f64) -> Result<Tensor> {
    if oss_kernels::supports(gate_up) {
        return Ok(oss_kernels::swiglu(gate_up, limit));
    }
    let (gate, up) = halves(gate_up)?;
    let gate = gate.clamp_max(limit);
    let up = up.clamp(-limit, limit);
    Ok((up + 1.0) * &gate * (gate * ALPHA).sigmoid())
}

/// Computes the same as [`oss_kernels::swiglu_backward`].
fn swiglu_backward(grad: &Tensor, gate_up: &Tensor, share: &Tensor, limit: f64) -> Result<SwigluBackward> {
    if oss_kernels::supports(gate_up) {
        return Ok(oss_kernels::swiglu_backward(grad, gate_up, share, limit));
    }
    let (raw_gate, raw_up) = halves(gate_up)?;
    let gate = raw_gate.clamp_max(limit);
    let up = raw_up.clamp(-limit, limit) + 1.0;
    let sigmoid = (&gate * ALPHA).sigmoid();
    let glu = &gate * &sigmoid;
    let hidden = &up * &glu;
    let grad_weight = (grad * &hidden).sum_dim_intlist([-1i64].as_slice(), false, share.kind());
    let share = share.to_kind(grad.kind()).unsqueeze(-1);
    let (weighted, grad) = (hidden * &share, grad * share);
    // d(glu)/d(gate) = s + ALPHA * gate * s * (1 - s)
    let slope = &sigmoid + &glu * (1.0 - &sigmoid) * ALPHA;
    let grad_gate = &grad * up * slope * raw_gate.le(limit);
    let grad_up = grad * glu * raw_up.ge(-limit) * raw_up.le(limit);
    let grad_gate_up = Tensor::stack(&[grad_gate, grad_up], -1).view_as(gate_up);
    Ok(SwigluBackward { weighted, grad_gate_up, grad_weight })
}

/// Splits interleaved columns `[R, 2F]` into gate and up.
fn halves(gate_up: &Tensor) -> Result<(Tensor, Tensor)> {
    let (r, width) = gate_up.size2()?;
    let pairs = gate_up.view([r, width / 2, 2]);
    Ok((pairs.select(-1, 0), pairs.select(-1, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_on_the_device_matches_sorting_on_the_host() {
        // The device's sort also runs on the CPU.
        // Expert 0 and the last two have no rows.
        let choices = [3i64, 1, 1, 4, 3, 2, 4, 3];
        let device = Groups::on_device(&Tensor::from_slice(&choices), 2, 7);
        let host = Groups::on_host(&choices, 2, 7);
        assert_eq!(device.groups(), host.groups());
        for (seen, wanted) in
            [(device.token, host.token), (device.order, host.order), (device.inverse, host.inverse)]
        {
            assert_eq!(seen, wanted);
        }
        let GroupOffsets::Device { ends, .. } = device.extent else { unreachable!("sorted for a device") };
        assert_eq!((ends.kind(), Vec::try_from(ends).unwrap()), (Kind::Int, vec![0i32, 2, 3, 6, 8, 8, 8]));
    }
}
