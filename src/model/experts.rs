//! The experts: tokens sorted by expert, two grouped products around gpt-oss's clamped SwiGLU, and the weighted sum.
//!
//! N tokens, D hidden, E experts, A active experts, F expert width, R = N*A rows sorted by expert.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::linear::{accumulate_product, product_into, product_plus_into, sum_rows};
use super::router::Routing;
use crate::torch;

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

/// The rows of all tokens' choices, sorted by expert.
#[derive(Debug)]
struct Groups {
    /// Token of each sorted row, i64 `[R]`.
    token: Tensor,
    /// Expert of each sorted row, i64 `[R]`.
    expert: Tensor,
    /// Choice (token * A + rank) of each sorted row, i64 `[R]`.
    order: Tensor,
    /// Sorted row of each choice, i64 `[R]`.
    inverse: Tensor,
    extent: Extent,
}

/// Where each expert's rows end.
#[derive(Debug)]
enum Extent {
    /// On the host, where the CPU loops over the experts.
    Host(Vec<i64>),
    /// On the device, for grouped products: i32 `[E]`.
    Device(Tensor),
}

/// What the backward pass needs beside the input.
#[derive(Debug)]
pub struct Saved {
    groups: Groups,
    gate_up: Tensor,
    hidden: Tensor,
    output: Tensor,
}

impl Groups {
    fn new(routing: &Routing, num_experts: i64) -> Self {
        let active = routing.experts.size()[1];
        let choices = routing.experts.flatten(0, -1); // [R]
        let (expert, order) = choices.sort_stable(true, 0, false);
        let token = order.divide_scalar_mode(active, "floor");
        let inverse = order.argsort(0, false);
        let ends = choices.bincount::<&Tensor>(None, num_experts).cumsum(0, Kind::Int64);
        let extent = if ends.device().is_cuda() {
            Extent::Device(ends.to_kind(Kind::Int))
        } else {
            Extent::Host(torch::i64_slice(&ends).to_vec())
        };
        Self { token, expert, order, inverse, extent }
    }

    /// `x [R, in]` times each row's own expert of `weight [E, in, out]`, plus its bias `[E, out]`.
    fn product(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match &self.extent {
            Extent::Device(ends) if groupable(x, weight) => {
                let y = x.internal_grouped_mm(weight, Some(ends), None, None);
                match bias {
                    Some(bias) => y + bias.to_kind(x.kind()).index_select(0, &self.expert),
                    None => y,
                }
            }
            _ => {
                let y = Tensor::empty([x.size()[0], weight.size()[2]], (x.kind(), x.device()));
                for (expert, start, len) in self.ranges() {
                    let (mut out, rows) = (y.narrow(0, start, len), x.narrow(0, start, len));
                    match bias {
                        Some(bias) => {
                            product_plus_into(&mut out, &rows, &weight.get(expert), &bias.get(expert))
                        }
                        None => product_into(&out, &rows, &weight.get(expert)),
                    }
                }
                y
            }
        }
    }

    /// Adds `x^T @ grad` of each expert's rows to `grad_weight [E, in, out]` and the sums of `grad` to `grad_bias`.
    fn accumulate(&self, x: &Tensor, grad: &Tensor, grad_weight: &Tensor, grad_bias: &mut Tensor) {
        if let Extent::Device(ends) = &self.extent
            && groupable(x, grad_weight)
        {
            let mut grad_weight = grad_weight.shallow_clone();
            let _ = grad_weight.g_add_(&x.transpose(0, 1).internal_grouped_mm(grad, Some(ends), None, None));
            // A product with the one-hot choice sums each expert's rows in a fixed order.
            let one_hot = self.expert.one_hot(grad_bias.size()[0]).to_kind(grad.kind());
            let _ = grad_bias.g_add_(&one_hot.transpose(0, 1).matmul(grad));
            return;
        }
        for (expert, start, len) in self.ranges() {
            let (rows, grad) = (x.narrow(0, start, len), grad.narrow(0, start, len));
            accumulate_product(&mut grad_weight.get(expert), &rows.transpose(0, 1), &grad);
            let _ = grad_bias.get(expert).g_add_(&sum_rows(&grad, grad_bias.kind()));
        }
    }

    /// Experts that have rows: (expert, first row, rows).
    fn ranges(&self) -> Vec<(i64, i64, i64)> {
        let ends = match &self.extent {
            Extent::Host(ends) => ends.clone(),
            Extent::Device(ends) => {
                let host = ends.to_device(tch::Device::Cpu).to_kind(Kind::Int64);
                torch::i64_slice(&host).to_vec()
            }
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts
            .zip(&ends)
            .enumerate()
            .filter(|(_, (start, end))| start < end)
            .map(|(expert, (start, &end))| (expert as i64, start, end - start))
            .collect()
    }

    /// Sorted rows `[R, ..]` of tokens back to each token's A rows: `[N, A, ..]`.
    fn by_token(&self, x: &Tensor, active: i64) -> Tensor {
        let rows = x.index_select(0, &self.inverse);
        rows.view([-1, active, x.size()[1]])
    }
}

/// Whether the device's grouped product takes these: bf16, and rows of a multiple of 16 bytes.
fn groupable(x: &Tensor, weight: &Tensor) -> bool {
    let width = |tensor: &Tensor| tensor.size().last().copied().unwrap_or(0) * 2 % 16 == 0;
    x.kind() == Kind::BFloat16 && width(x) && width(weight)
}

/// Rows `x [N, D]` to the weighted sum of their experts' outputs `[N, D]`.
pub fn forward(x: &Tensor, weights: &Weights, routing: &Routing, limit: f64) -> Result<(Tensor, Saved)> {
    let active = routing.experts.size()[1];
    let groups = Groups::new(routing, weights.gate_up.size()[0]);
    let rows = x.index_select(0, &groups.token); // [R, D]
    let gate_up = groups.product(&rows, &weights.gate_up, Some(&weights.gate_up_bias)); // [R, 2F]
    let hidden = swiglu(&gate_up, limit)?; // [R, F]
    let output = groups.product(&hidden, &weights.down, Some(&weights.down_bias)); // [R, D]
    let share = routing.weights.to_kind(x.kind()).unsqueeze(1); // [N, 1, A]
    let y = share.matmul(&groups.by_token(&output, active)).squeeze_dim(1); // [N, D]
    Ok((y, Saved { groups, gate_up, hidden, output }))
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
    let by_token = groups.by_token(&saved.output, active); // [N, A, D]
    let grad_share = by_token.matmul(&grad.unsqueeze(-1)).squeeze_dim(-1).to_kind(routing.weights.kind()); // [N, A]
    let share = routing.weights.flatten(0, -1).index_select(0, &groups.order).to_kind(grad.kind()); // [R]
    let grad_output = grad.index_select(0, &groups.token) * share.unsqueeze(-1); // [R, D]
    groups.accumulate(&saved.hidden, &grad_output, &grads.down, &mut grads.down_bias);
    let grad_hidden = groups.product(&grad_output, &weights.down.transpose(1, 2), None); // [R, F]
    let grad_gate_up = swiglu_backward(&grad_hidden, &saved.gate_up, limit)?; // [R, 2F]
    let rows = x.index_select(0, &groups.token);
    groups.accumulate(&rows, &grad_gate_up, &grads.gate_up, &mut grads.gate_up_bias);
    let grad_rows = groups.product(&grad_gate_up, &weights.gate_up.transpose(1, 2), None); // [R, D]
    let grad_x = groups.by_token(&grad_rows, active).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>);
    Ok((grad_x, grad_share))
}

/// `(up + 1) * gate * sigmoid(ALPHA * gate)` with `gate` clamped above and `up` on both sides.
fn swiglu(gate_up: &Tensor, limit: f64) -> Result<Tensor> {
    let (gate, up) = halves(gate_up)?;
    let gate = gate.clamp_max(limit);
    let up = up.clamp(-limit, limit);
    Ok((up + 1.0) * &gate * (gate * ALPHA).sigmoid())
}

fn swiglu_backward(grad: &Tensor, gate_up: &Tensor, limit: f64) -> Result<Tensor> {
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
