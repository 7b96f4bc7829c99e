//! Which experts each token visits, with which weights, and how evenly.
//!
//! N tokens, D hidden, E experts, A active experts. The router's numbers stay f32 in every precision.

use tch::{Kind, Tensor};

use super::{Linear, linear, wide, wide_kind};

/// Where the tokens of one layer go.
#[derive(Debug)]
pub struct Routing {
    /// Experts of each token, likeliest first: i64 `[N, A]`.
    pub experts: Tensor,
    /// Their weights, which sum to 1: f32 `[N, A]`.
    pub weights: Tensor,
    /// The softmax over all experts: f32 `[N, E]`.
    pub probabilities: Tensor,
}

/// Rows `x [N, D]` to their routing. `chosen` reuses an earlier choice of experts instead of choosing again, so that
/// recomputation cannot route differently.
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

/// The gradient of `x`, from the gradient of the routing weights `[N, A]` and that of the probabilities `[E]`, which is
/// the same for every token (the balancing loss is linear in their sum); the layer's are added to `grads`.
pub fn backward(
    grad_weights: &Tensor,
    grad_probabilities: Option<&Tensor>,
    x: &Tensor,
    layer: &Linear,
    routing: &Routing,
    grads: &mut Linear,
) -> Tensor {
    let chosen = softmax_backward(grad_weights, &routing.weights); // [N, A]
    // A token's experts differ, so the scatter adds at most one number to a place and its order is free.
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

/// How evenly one layer's tokens spread, over a whole batch.
///
/// The balancing loss of a layer is `E * sum_e f_e * P_e` (arXiv:2101.03961, eq. 4, with A choices a token): f is the
/// share of tokens that chose expert e, P the mean probability. It is A when both are uniform; only P has a gradient.
#[derive(Debug)]
pub struct ExpertLoad {
    /// Choices of each expert, f32 `[E]` (exact up to 2^24 a layer and batch).
    pub counts: Tensor,
    /// Sum of each expert's probability over the tokens, f32 `[E]`.
    pub probability: Tensor,
    /// Tokens counted.
    pub tokens: i64,
}

impl ExpertLoad {
    /// Nothing counted yet.
    pub fn empty(num_experts: i64, like: &Tensor) -> Self {
        let zeros = || Tensor::zeros([num_experts], (wide_kind(like.kind()), like.device()));
        Self { counts: zeros(), probability: zeros(), tokens: 0 }
    }

    /// Counts a routing.
    pub fn add(&mut self, routing: &Routing) {
        // `bincount` would wait for the device, to see the largest number.
        let chosen = routing.probabilities.zeros_like().scatter_value_(-1, &routing.experts, 1.0); // [N, E]
        self.counts += linear::sum_rows(&chosen, self.counts.kind());
        self.probability += linear::sum_rows(&routing.probabilities, self.probability.kind());
        self.tokens += routing.experts.size()[0];
    }

    /// The layer's balancing loss.
    pub fn balance_loss(&self) -> f64 {
        let n = self.tokens as f64;
        let product = (&self.counts * &self.probability).sum(Kind::Double);
        self.counts.size()[0] as f64 * product.double_value(&[]) / (n * n)
    }

    /// The balancing loss averaged over layers, not multiplied by its weight; A when uniform.
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
    fn a_load_counts_the_choices_of_all_its_routings() {
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
    fn the_mean_balance_loss_of_even_layers_is_the_number_of_choices() {
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
