//! The router: which experts each token goes to, with which weights, and how evenly the load is spread.
//!
//! N tokens, D hidden, E experts, A active experts. The router computes in f32 whatever the training precision.

use tch::{Kind, Tensor};

use super::{Linear, linear, wide, wide_kind};

/// The routing of one layer's tokens.
#[derive(Debug)]
pub struct Routing {
    /// Experts of each token, most probable first: i64 `[N, A]`.
    pub experts: Tensor,
    /// Their weights, which sum to 1 for each token: f32 `[N, A]`.
    pub weights: Tensor,
    /// The softmax over all experts: f32 `[N, E]`.
    pub probabilities: Tensor,
}

/// Routes the rows `x [N, D]`. `chosen` reuses an earlier choice of experts, so that recomputation cannot route
/// differently.
pub fn forward(x: &Tensor, layer: &Linear, active: i64, chosen: Option<&Tensor>) -> Routing {
    let logits = linear::forward(&wide(x), layer); // [N, E]
    if oss_kernels::supports(&logits) {
        let (experts, weights, probabilities) = oss_kernels::route(&logits, active, chosen);
        return Routing { experts, weights, probabilities };
    }
    let experts = match chosen {
        Some(experts) => experts.shallow_clone(),
        None => logits.topk(active, -1, true, true).1,
    };
    let weights = logits.gather(-1, &experts, false).softmax(-1, None::<Kind>);
    Routing { experts, weights, probabilities: logits.softmax(-1, None::<Kind>) }
}

/// Returns the gradient of `x`, given the gradients of the routing weights `[N, A]` and of the probabilities `[E]`; the
/// latter is the same for every token, since the auxiliary loss is linear in their sum. Accumulates the layer's
/// gradients into `grads`.
pub fn backward(
    grad_weights: &Tensor,
    grad_probabilities: Option<&Tensor>,
    x: &Tensor,
    layer: &Linear,
    routing: &Routing,
    grads: &mut Linear,
) -> Tensor {
    let chosen = softmax_backward(grad_weights, &routing.weights); // [N, A]
    // A token's experts are distinct, so the scatter writes each element at most once and is deterministic.
    let mut grad_logits = routing.probabilities.zeros_like().scatter_(-1, &routing.experts, &chosen); // [N, E]
    if let Some(grad) = grad_probabilities {
        grad_logits += softmax_backward(&grad.unsqueeze(0), &routing.probabilities);
    }
    linear::backward(&grad_logits, &wide(x), layer, grads).to_kind(x.kind())
}

fn softmax_backward(grad: &Tensor, output: &Tensor) -> Tensor {
    let weighted = grad * output;
    let total = weighted.sum_dim_intlist([-1i64].as_slice(), true, None::<Kind>);
    weighted - output * total
}

/// How evenly one layer's tokens are spread over its experts, across a whole batch.
///
/// The load-balancing (auxiliary) loss of a layer is `E * sum_e f_e * P_e` (arXiv:2101.03961, eq. 4, with A choices per
/// token): `f_e` is the fraction of tokens routed to expert e, `P_e` its mean probability. It equals A when both are
/// uniform; only P has a gradient.
#[derive(Debug)]
pub struct ExpertLoad {
    /// Number of tokens routed to each expert, f32 `[E]` (exact up to 2^24 per layer and batch).
    pub counts: Tensor,
    /// Each expert's probability summed over the tokens, f32 `[E]`.
    pub probability: Tensor,
    /// Number of tokens counted.
    pub tokens: i64,
}

impl ExpertLoad {
    /// An empty count.
    pub fn empty(num_experts: i64, like: &Tensor) -> Self {
        let zeros = || Tensor::zeros([num_experts], (wide_kind(like.kind()), like.device()));
        Self { counts: zeros(), probability: zeros(), tokens: 0 }
    }

    /// Adds a routing to the counts.
    pub fn add(&mut self, routing: &Routing) {
        // `bincount` would synchronize with the device to find the maximum.
        let chosen = routing.probabilities.zeros_like().scatter_value_(-1, &routing.experts, 1.0); // [N, E]
        self.counts += linear::sum_rows(&chosen, self.counts.kind());
        self.probability += linear::sum_rows(&routing.probabilities, self.probability.kind());
        self.tokens += routing.experts.size()[0];
    }

    /// The layer's load-balancing loss.
    pub fn balance_loss(&self) -> f64 {
        let n = self.tokens as f64;
        let product = (&self.counts * &self.probability).sum(Kind::Double);
        self.counts.size()[0] as f64 * product.double_value(&[]) / (n * n)
    }

    /// The load-balancing loss averaged over layers, before its coefficient is applied; A when uniform.
    pub fn mean_balance_loss(layers: &[Self]) -> f64 {
        layers.iter().map(Self::balance_loss).sum::<f64>() / layers.len() as f64
    }

    /// The gradient of `coefficient * balance_loss` with respect to every token's probabilities: f32 `[E]`.
    pub fn balance_gradient(&self, coefficient: f64) -> Tensor {
        let n = self.tokens as f64;
        &self.counts * (coefficient * self.counts.size()[0] as f64 / (n * n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_adds_up_over_routings() {
        let routing = |experts: [i64; 6]| Routing {
            experts: Tensor::from_slice(&experts).view([3, 2]),
            weights: Tensor::full([3, 2], 0.5, (Kind::Float, tch::Device::Cpu)),
            probabilities: Tensor::full([3, 4], 0.25, (Kind::Float, tch::Device::Cpu)),
        };
        let mut load = ExpertLoad::empty(4, &Tensor::from(0f32));
        load.add(&routing([0, 2, 2, 0, 2, 1]));
        load.add(&routing([1, 2, 2, 0, 1, 0]));
        assert_eq!(load.tokens, 6);
        assert_eq!(Vec::<f32>::try_from(load.counts).unwrap(), [4.0, 3.0, 5.0, 0.0]);
        assert_eq!(Vec::<f32>::try_from(load.probability).unwrap(), [1.5; 4]);
    }

    #[test]
    fn balance_loss_of_a_uniform_load_is_the_number_of_active_experts() {
        let even = || ExpertLoad {
            counts: Tensor::full([4], 3.0, (Kind::Float, tch::Device::Cpu)),
            probability: Tensor::full([4], 1.5, (Kind::Float, tch::Device::Cpu)),
            tokens: 6,
        };
        let one_sided = ExpertLoad {
            counts: Tensor::from_slice(&[6f32, 6.0, 0.0, 0.0]),
            probability: Tensor::from_slice(&[3f32, 3.0, 0.0, 0.0]),
            tokens: 6,
        };
        assert_eq!(ExpertLoad::mean_balance_loss(&[even(), even()]), 2.0);
        assert_eq!(ExpertLoad::mean_balance_loss(&[even(), one_sided]), 3.0);
    }
}
