//! Unit-major execution: one global batch goes forward through the chain of units, then backward in reverse.
//!
//! All micro-batches pass through a unit before the next unit starts, so each unit's weights are needed once per pass
//! and its gradient is complete when its backward ends. On multiple ranks, a unit is gathered while the previous one
//! computes, and its gradient is reduced while the next one computes: once per pass, regardless of gradient
//! accumulation. Between units, only the boundary activations are stored; within a unit, what its backward needs (with
//! `recompute`, only the routing decisions).

use anyhow::Result;
use tch::{Kind, Tensor};

use super::sharded_model::ShardedModel;
use crate::distributed::Mesh;
use crate::model::{
    self, Block, BlockWeights, EMBEDDING_UNIT, ExpertLoad, HeadGradients, HeadWeights, Parameter, Rotation,
    Sequences, block_unit, embed, head_unit,
};
use oss_config::Model;

/// One micro-batch.
#[derive(Debug)]
pub struct MicroBatch {
    /// Input tokens and documents.
    pub inputs: Sequences,
    /// The token after each input, i64 `[N]`.
    pub targets: Tensor,
}

/// Options of a forward and backward pass.
#[derive(Clone, Copy, Debug)]
pub struct PassOptions {
    /// Dtype of the matrix products.
    pub kind: Kind,
    /// Store only block inputs and routing decisions, and recompute activations in the backward.
    pub activation_checkpointing: bool,
    /// Coefficient of the load-balancing loss, which is averaged over the layers.
    pub router_aux_loss_coef: f64,
    /// Multiplies all gradients (the loss scale, used in f16).
    pub loss_scale: f64,
}

/// The results of a forward and backward pass.
#[derive(Debug)]
pub struct PassResult {
    /// This rank's contribution to the mean negative log-likelihood of the global batch, f64 `[]`: the loss is the sum
    /// over the ranks.
    pub loss: Tensor,
    /// The expert load of each layer over all ranks.
    pub loads: Vec<ExpertLoad>,
    /// Tokens predicted, over all ranks.
    pub tokens: i64,
    /// The sum of the squares of this rank's gradient slices, f64 `[]`, if they have already been consumed.
    pub squares: Option<Tensor>,
}

/// Computes the loss of the batch and the gradients of `loss + balance_loss * weight` over the batches of all ranks. If
/// units are updated in the backward pass, their gradients are consumed there, and the backward pass is skipped if the
/// loss is not finite. That loss check is the only synchronization with a GPU.
///
/// # Errors
/// Fails if another rank has exited.
pub fn forward_backward(
    model: &Model,
    sharded: &mut ShardedModel<'_>,
    batch: &[MicroBatch],
    options: PassOptions,
) -> Result<PassResult> {
    let mesh = sharded.mesh();
    let here: i64 = batch.iter().map(|micro| micro.targets.size()[0]).sum();
    let tokens = here * mesh.ranks() as i64;
    let length = batch[0].inputs.tokens.size()[1];
    let rotation = Rotation::consecutive(model, length, options.kind, mesh.device())?;
    let block = |layer: usize, micro: &MicroBatch| Block {
        model,
        layer: layer as i64,
        rotation: &rotation,
        documents: micro.inputs.documents.clone(),
        batch: micro.inputs.tokens.size()[0],
    };
    let layers = model.num_hidden_layers as usize;
    let (embedding, first, head) = (EMBEDDING_UNIT, block_unit(0), head_unit(model));

    let matrix = &sharded.weights(embedding)?[Parameter::Embedding.index()];
    sharded.prefetch(first)?;
    let embedded = |(index, micro): (usize, &MicroBatch)| {
        tracing::trace!(unit = embedding, micro_batch = index, "forward");
        embed(matrix, &micro.inputs.tokens, options.kind)
    };
    let mut rows: Vec<Tensor> = batch.iter().enumerate().map(embedded).collect(); // [N, D] each
    let mut kept = Vec::with_capacity(layers);
    let mut loads = Vec::with_capacity(layers);
    for layer in 0..layers {
        let weights = BlockWeights::new(&sharded.weights(first + layer)?);
        sharded.prefetch(first + layer + 1)?;
        let mut load = ExpertLoad::empty(model.num_local_experts, &weights.sinks().detach());
        let mut layer_kept = Vec::with_capacity(batch.len());
        for (index, (x, micro)) in rows.iter_mut().zip(batch).enumerate() {
            tracing::trace!(unit = first + layer, micro_batch = index, "forward");
            let (y, activations) = block(layer, micro).forward(x, &weights, None)?;
            load.add(activations.routing());
            layer_kept.push((std::mem::replace(x, y), activations.keep(options.activation_checkpointing)));
        }
        kept.push(layer_kept);
        loads.push(load);
    }
    sum_loads(mesh, &mut loads)?;

    let scale = options.loss_scale / tokens as f64;
    let weights = HeadWeights::new(&sharded.weights(head)?);
    let mut grads = HeadGradients::new(&sharded.begin_gradients(head, Some(Parameter::LmHead))?);
    // The last block's weights are needed again next, and may still be gathered.
    sharded.prefetch(head - 1)?;
    let mut total = Tensor::zeros([], (Kind::Double, mesh.device()));
    let mut gradients = Vec::with_capacity(batch.len());
    for (index, (x, micro)) in rows.into_iter().zip(batch).enumerate() {
        tracing::trace!(unit = head, micro_batch = index, "loss");
        let (loss, grad) = model::loss_and_gradient(
            model,
            &x,
            &micro.targets,
            &weights,
            scale,
            &mut grads,
            sharded.loss_scratch(),
        );
        total += loss;
        gradients.push(grad);
    }
    let mut result = PassResult { loss: total / tokens as f64, loads, tokens, squares: None };
    if sharded.is_updated_in_backward() {
        let loss = result.loss.unsqueeze(0).copy();
        mesh.everyone.all_reduce(&loss, "losses")?.wait()?;
        if !loss.double_value(&[0]).is_finite() {
            return Ok(result);
        }
    }
    sharded.end_gradients(head)?;

    let balance_weight = options.loss_scale * options.router_aux_loss_coef / layers as f64;
    for (layer, layer_kept) in kept.into_iter().enumerate().rev() {
        let weights = BlockWeights::new(&sharded.weights(first + layer)?);
        let mut grads = BlockWeights::new(&sharded.begin_gradients(first + layer, None)?);
        if layer > 0 {
            sharded.prefetch(first + layer - 1)?;
        }
        let balance = (balance_weight != 0.0).then(|| result.loads[layer].balance_gradient(balance_weight));
        for (index, ((grad, micro), (x, saved))) in
            gradients.iter_mut().zip(batch).zip(layer_kept).enumerate()
        {
            tracing::trace!(unit = first + layer, micro_batch = index, "backward");
            *grad = block(layer, micro).backward(grad, &x, &weights, saved, balance.as_ref(), &mut grads)?;
        }
        sharded.end_gradients(first + layer)?;
    }
    let mut matrix = sharded.begin_gradients(embedding, None)?.swap_remove(Parameter::Embedding.index());
    for (index, (grad, micro)) in gradients.iter().zip(batch).enumerate() {
        tracing::trace!(unit = embedding, micro_batch = index, "backward");
        let _ = matrix.index_add_(0, &micro.inputs.tokens.flatten(0, -1), &grad.to_kind(matrix.kind()));
    }
    sharded.end_gradients(embedding)?;
    result.squares = sharded.finish_gradients()?;
    Ok(result)
}

/// Sums each layer's load over all ranks.
fn sum_loads(mesh: &Mesh, loads: &mut [ExpertLoad]) -> Result<()> {
    if mesh.everyone.is_alone() {
        return Ok(());
    }
    let parts: Vec<Tensor> = loads
        .iter()
        .flat_map(|load| [load.counts.shallow_clone(), load.probability.shallow_clone()])
        .collect();
    let all = Tensor::stack(&parts, 0); // [2 * layers, E]
    mesh.everyone.all_reduce(&all, "the experts' loads")?.wait()?;
    for (layer, load) in loads.iter_mut().enumerate() {
        load.counts = all.get(2 * layer as i64);
        load.probability = all.get(2 * layer as i64 + 1);
        load.tokens *= mesh.ranks() as i64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Initial, vocab_size};
    use crate::optimizer::StorageConfig;
    use oss_config::Preset;
    use tch::Device;

    /// The final norm scales rows to length sqrt(D), so logits have variance D*std^2. The mean of exp(z) for a normal z
    /// of that variance is exp(D*std^2 / 2).
    #[test]
    fn the_initial_loss_matches_random_logits() {
        let model = Model {
            vocab_size: Some(2003),
            hidden_size: 2880,
            num_hidden_layers: 1,
            head_dim: 64,
            intermediate_size: 32,
            ..Preset::Tiny.model()
        };
        let mut source = Initial::new(&model, 5);
        let mesh = Mesh::alone(Device::Cpu);
        let mut sharded =
            ShardedModel::load(&model, &mut source, &mesh, &StorageConfig::f32(Kind::Float)).unwrap();
        tch::manual_seed(1);
        let tokens = Tensor::randint(vocab_size(&model), [4, 65], (Kind::Int64, Device::Cpu));
        let batch = [MicroBatch {
            inputs: Sequences { tokens: tokens.narrow(1, 0, 64).contiguous(), documents: None },
            targets: tokens.narrow(1, 1, 64).flatten(0, -1),
        }];
        let options = PassOptions {
            kind: Kind::Float,
            activation_checkpointing: false,
            router_aux_loss_coef: 0.0,
            loss_scale: 1.0,
        };
        let _no_grad = tch::no_grad_guard();
        let seen = forward_backward(&model, &mut sharded, &batch, options).unwrap().loss.double_value(&[]);
        let expected = 2003f64.ln() + 2880.0 * 0.02f64.powi(2) / 2.0;
        assert!((seen / expected - 1.0).abs() < 0.01, "{seen}, expected {expected}");
    }
}
