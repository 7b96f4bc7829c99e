//! One block of the chain: attention and experts, each added to the residual stream.
//!
//! B batch, N = B*T tokens, D hidden, E experts, A active experts.

use anyhow::Result;
use tch::Tensor;

use super::rope::Rotation;
use super::router::{self, Routing};
use super::sdpa::Visibility;
use super::{BlockParameter, Linear, attention, experts, norm};
use oss_config::{LayerType, Model};

/// Weights of a block, or their gradients.
#[derive(Debug)]
pub struct Weights {
    pub(crate) attention: attention::Weights,
    norm: Tensor,
    router: Linear,
    experts: experts::Weights,
}

impl Weights {
    /// Assigns names to a unit's tensors, which are in the order of [`super::unit_parameters`].
    pub fn new(tensors: &[Tensor]) -> Self {
        use BlockParameter::*;
        let tensor = |parameter: BlockParameter| tensors[parameter.index()].shallow_clone();
        let linear = |weight, bias| Linear { weight: tensor(weight), bias: tensor(bias) };
        Self {
            attention: attention::Weights {
                norm: tensor(AttentionNorm),
                q: linear(QWeight, QBias),
                k: linear(KWeight, KBias),
                v: linear(VWeight, VBias),
                sinks: tensor(Sinks),
                out: linear(OWeight, OBias),
            },
            norm: tensor(MlpNorm),
            router: linear(RouterWeight, RouterBias),
            experts: experts::Weights {
                gate_up: tensor(GateUpWeight),
                gate_up_bias: tensor(GateUpBias),
                down: tensor(DownWeight),
                down_bias: tensor(DownBias),
            },
        }
    }
}

impl Weights {
    /// The sink logits, f32 `[H]`.
    pub fn sinks(&self) -> &Tensor {
        &self.attention.sinks
    }

    /// The output projection of attention rows `[N, H*C]`, for decoding.
    pub fn project_out(&self, rows: &Tensor) -> Tensor {
        super::linear::forward(rows, &self.attention.out)
    }
}

/// A block's position in the chain, and the context shared by its forward and backward passes.
#[derive(Debug)]
pub struct Block<'a> {
    /// The architecture.
    pub model: &'a Model,
    /// Layer index.
    pub layer: i64,
    /// Rotary embedding for the positions of the rows.
    pub rotation: &'a Rotation,
    /// Document lengths, if attention is restricted to each token's own document.
    pub documents: Option<std::sync::Arc<Vec<Vec<i64>>>>,
    /// Batch size B.
    pub batch: i64,
}

/// What the backward pass needs: every activation, or only the choice of experts under activation checkpointing.
#[derive(Debug)]
pub enum Saved {
    /// Every activation.
    Full(Box<Activations>),
    /// Enough to recompute the activations from the block's input.
    Input {
        /// The choice of experts, i64 `[N, A]`, which is reused rather than recomputed.
        experts: Tensor,
    },
}

/// Activations of one forward pass.
#[derive(Debug)]
pub struct Activations {
    attention: attention::Saved,
    middle: Tensor,
    norm: norm::Saved,
    routing: Routing,
    experts: experts::Saved,
}

impl Activations {
    /// How the tokens were routed.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// Rotated keys and values `[B, T, K, C]`.
    pub fn keys_values(&self) -> (&Tensor, &Tensor) {
        self.attention.keys_values()
    }

    /// Selects what to save for the backward pass.
    pub fn keep(self, recompute: bool) -> Saved {
        if recompute { Saved::Input { experts: self.routing.experts } } else { Saved::Full(Box::new(self)) }
    }
}

impl Block<'_> {
    fn visibility(&self) -> Visibility {
        let sliding = self.model.layer_type(self.layer) == LayerType::SlidingAttention;
        Visibility { window: sliding.then_some(self.model.sliding_window), documents: self.documents.clone() }
    }

    /// Maps `x [N, D]` to the next block's residual rows; `chosen` fixes the experts.
    pub fn forward(
        &self,
        x: &Tensor,
        weights: &Weights,
        chosen: Option<&Tensor>,
    ) -> Result<(Tensor, Activations)> {
        let (added, attention) = attention::forward(
            self.model,
            x,
            &weights.attention,
            self.rotation,
            &self.visibility(),
            self.batch,
        )?;
        let ExpertHalf { y, middle, norm, routing, experts } =
            expert_half(self.model, x, &added, weights, chosen)?;
        Ok((y, Activations { attention, middle, norm, routing, experts }))
    }

    /// Returns the gradient of `x` and accumulates the weights' gradients into `grads`. `grad_probabilities` (f32
    /// `[E]`) is the gradient of the router's auxiliary loss.
    pub fn backward(
        &self,
        grad: &Tensor,
        x: &Tensor,
        weights: &Weights,
        saved: Saved,
        grad_probabilities: Option<&Tensor>,
        grads: &mut Weights,
    ) -> Result<Tensor> {
        let activations = match saved {
            Saved::Full(activations) => activations,
            Saved::Input { experts } => Box::new(self.forward(x, weights, Some(&experts))?.1),
        };
        let Activations { attention, middle, norm, routing, experts } = *activations;
        let limit = self.model.swiglu_limit;
        let normalized = norm::recompute(&middle, &weights.norm, &norm);
        let (through_experts, grad_share) = experts::backward(
            grad,
            &normalized,
            &weights.experts,
            &routing,
            &experts,
            limit,
            &mut grads.experts,
        )?;
        let through_router = router::backward(
            &grad_share,
            grad_probabilities,
            &normalized,
            &weights.router,
            &routing,
            &mut grads.router,
        );
        let grad_normalized = through_experts + through_router;
        let grad_middle =
            norm::backward(&grad_normalized, Some(grad), &middle, &weights.norm, &norm, &mut grads.norm);
        attention::backward(
            &grad_middle,
            x,
            &weights.attention,
            &attention,
            self.rotation,
            &self.visibility(),
            &mut grads.attention,
        )
    }
}

/// Results of a block's second half.
struct ExpertHalf {
    y: Tensor,
    middle: Tensor,
    norm: norm::Saved,
    routing: Routing,
    experts: experts::Saved,
}

fn expert_half(
    model: &Model,
    x: &Tensor,
    added: &Tensor,
    weights: &Weights,
    chosen: Option<&Tensor>,
) -> Result<ExpertHalf> {
    let (middle, normalized, norm) = norm::add_forward(x, added, &weights.norm, model.rms_norm_eps);
    let routing = router::forward(&normalized, &weights.router, model.num_experts_per_tok, chosen);
    let (y, experts) =
        experts::forward(&middle, &normalized, &weights.experts, &routing, model.swiglu_limit)?;
    Ok(ExpertHalf { y, middle, norm, routing, experts })
}

/// A block's second half, for decoding: takes residual rows `x [N, D]` and the attention output, returns the next
/// block's rows.
pub fn feed_forward(model: &Model, x: &Tensor, added: &Tensor, weights: &Weights) -> Result<Tensor> {
    Ok(expert_half(model, x, added, weights, None)?.y)
}
