//! Validation loss: the mean negative log-likelihood over all predicted tokens, independent of the batch size and the
//! number of ranks.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::distributed::Mesh;
use crate::model::{Chain, ExpertLoad, Routing, Sequences};
use oss_config::error::UserError;

/// Tokens per forward pass. Fixed, because the grouping of rows affects the last bits of the sum.
const TOKENS_AT_ONCE: usize = 4096;

/// Evaluation settings.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Predictions per window.
    pub sequence_length: usize,
    /// Maximum number of tokens to score.
    pub max_tokens: Option<u64>,
    /// The end-of-text token, if tokens attend only within their own document.
    pub end_of_text: Option<i64>,
}

/// The results of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean negative log-likelihood, in nats per token.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Tokens predicted.
    pub tokens: u64,
    /// Fraction of each layer's routing choices that went to each expert: `[layer][expert]`; rows sum to 1.
    pub expert_load: Vec<Vec<f64>>,
    /// Number of experts, over all layers, that received no tokens.
    pub dead_experts: u64,
    /// The busiest expert's load relative to the uniform load of its layer.
    pub max_load: f64,
}

/// One window: the inputs and their targets, of equal length.
type Window<'a> = (&'a [u32], &'a [u32]);

/// Consecutive windows of `length` predictions. Each input starts at the token before its window's first prediction,
/// and the last window may be shorter.
fn windows(tokens: &[u32], length: usize) -> impl Iterator<Item = Window<'_>> {
    let predictions = tokens.len().saturating_sub(1);
    (0..predictions).step_by(length).map(move |start| {
        let end = (start + length).min(predictions);
        (&tokens[start..end], &tokens[start + 1..end + 1])
    })
}

/// Computes the loss of `tokens`. `progress` receives the number of predictions so far and may abort the evaluation
/// with an error, which it must do on all ranks alike. The windows are divided among the ranks of `mesh`. All ranks
/// return the result, which does not depend on their number.
///
/// # Errors
/// Fails if the text has fewer than two tokens, if `progress` fails, or if another rank has exited.
pub fn evaluate(
    chain: &Chain<'_>,
    mesh: &Mesh,
    tokens: &[u32],
    options: Options,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<Evaluation> {
    ensure!(
        tokens.len() > 1,
        UserError::failed(format!("cannot evaluate a text of {} tokens", tokens.len()))
            .hint("provide at least two tokens")
    );
    let limit = options.max_tokens.map_or(tokens.len(), |max| tokens.len().min(max as usize + 1));
    let _no_grad = tch::no_grad_guard();
    let at_once = (TOKENS_AT_ONCE / options.sequence_length).max(1);
    let all: Vec<Window<'_>> = windows(&tokens[..limit], options.sequence_length).collect();
    // Windows of equal length are grouped. Only the last one can be shorter, and forms its own group.
    let groups: Vec<&[Window<'_>]> =
        all.chunk_by(|a, b| a.0.len() == b.0.len()).flat_map(|same| same.chunks(at_once)).collect();
    let longest = at_once * options.sequence_length;
    let mut loads: Vec<ExpertLoad> = Vec::new();
    let (mut sum, mut count) = (0.0, 0u64);
    for round in groups.chunks(mesh.ranks()) {
        // A rank without a group in the last round still takes part in gathering the weights.
        let own = round.get(mesh.rank());
        let group = own.unwrap_or(&round[0]);
        let losses = score(chain, group, options.end_of_text, |layer, routing| {
            if loads.len() <= layer as usize {
                loads.push(ExpertLoad::empty(chain.model.num_local_experts, &routing.probabilities));
            }
            if own.is_some() {
                loads[layer as usize].add(routing);
            }
        })?;
        for (losses, group) in mesh.join(&losses, longest)?.chunks(longest).zip(round) {
            let predictions = group.iter().map(|(_, targets)| targets.len()).sum::<usize>();
            sum = losses[..predictions].iter().fold(sum, |sum, loss| sum + loss);
            count += predictions as u64;
        }
        progress(count)?;
    }
    for load in &mut loads {
        load.counts = load.counts.to_kind(Kind::Double);
        mesh.everyone.all_reduce(&load.counts, "the experts' loads")?.wait()?;
    }
    let counts: Vec<Vec<f64>> = loads
        .iter()
        .map(|load| Vec::<f64>::try_from(load.counts.to_kind(Kind::Double)))
        .collect::<Result<_, _>>()?;
    let expert_load: Vec<Vec<f64>> = counts
        .iter()
        .map(|layer| layer.iter().map(|count| count / layer.iter().sum::<f64>()).collect())
        .collect();
    let experts = chain.model.num_local_experts as f64;
    let loss = sum / count as f64;
    Ok(Evaluation {
        loss,
        perplexity: loss.exp(),
        tokens: count,
        dead_experts: counts.iter().flatten().filter(|&&count| count == 0.0).count() as u64,
        max_load: expert_load.iter().flatten().copied().fold(0.0, f64::max) * experts,
        expert_load,
    })
}

/// Negative log-likelihoods of a group's targets, in order. `seen` is called with each layer's routing.
fn score(
    chain: &Chain<'_>,
    group: &[Window<'_>],
    end_of_text: Option<i64>,
    mut seen: impl FnMut(i64, &Routing),
) -> Result<Vec<f64>> {
    let widen = |part: &[u32]| part.iter().map(|&token| i64::from(token)).collect::<Vec<i64>>();
    let inputs: Vec<Vec<i64>> = group.iter().map(|(input, _)| widen(input)).collect();
    let rows: Vec<&[i64]> = inputs.iter().map(Vec::as_slice).collect();
    let targets: Vec<i64> = group.iter().flat_map(|(_, target)| widen(target)).collect();
    let device = chain.device();
    let x = chain.hidden(&Sequences::new(&rows, end_of_text, device), |layer, activations| {
        seen(layer, activations.routing());
        Ok(())
    })?;
    let losses = chain.losses(&x, &Tensor::from_slice(&targets).to_device(device))?;
    Ok(Vec::try_from(losses.to_kind(Kind::Double))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_predict_every_token_but_the_first_once() {
        let tokens: Vec<u32> = (0..23).collect();
        for length in [1, 4, 11, 22, 100] {
            let predicted: Vec<u32> =
                windows(&tokens, length).flat_map(|(_, targets)| targets.to_vec()).collect();
            assert_eq!(predicted, tokens[1..]);
            for (input, target) in windows(&tokens, length) {
                assert_eq!(input.len(), target.len());
                assert_eq!(input[0] + 1, target[0]);
            }
        }
    }
}
