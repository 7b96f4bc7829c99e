//! Decodes a batch of prompts.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::Decoding;
use super::cache::LayerCache;
use super::sampler::Sampler;
use crate::distributed::Mesh;
use crate::model::{
    BlockWeights, Chain, EMBEDDING_UNIT, Parameter, Rotation, Sequences, block_unit, embed, feed_forward,
    project_queries,
};
use oss_config::error::UserError;
use oss_torch::OwnedTensor;

/// A tokenized prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The tokens; at least one.
    pub tokens: Vec<i64>,
    /// Index of the prompt's random stream. Under the same seed, equal indices yield the same draws.
    pub stream: u64,
}

/// Generates up to `decoding.max_new_tokens` tokens for each prompt. A sequence ends after a token of
/// `decoding.end_tokens`, which is included, or when `stop` returns true for its generated tokens.
///
/// `progress` receives the number of tokens generated per sequence so far and may abort decoding with an error, which
/// it must do on all ranks alike. All ranks of `mesh` decode the whole batch, so the tokens do not depend on their
/// number.
pub fn generate(
    chain: &Chain<'_>,
    mesh: &Mesh,
    prompts: &[Prompt],
    decoding: &Decoding,
    mut stop: impl FnMut(usize, &[i64]) -> bool,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Vec<i64>>> {
    ensure!(
        prompts.iter().all(|prompt| !prompt.tokens.is_empty()),
        UserError::failed("a prompt has no tokens").hint("pass a non-empty prompt")
    );
    let _no_grad = tch::no_grad_guard();
    let device = chain.device();
    let mut added = vec![Vec::new(); prompts.len()];
    let mut samplers: Vec<Sampler> =
        prompts.iter().map(|prompt| Sampler::new(decoding, prompt.stream)).collect();
    let mut decoder = Decoder::new(chain, prompts, decoding.max_new_tokens)?;
    let mut logits = decoder.prefill(prompts)?; // [B, V]
    let mut live: Vec<usize> = (0..prompts.len()).collect();
    for count in 1..=decoding.max_new_tokens {
        let vocab = logits.size()[1] as usize;
        let on_host = { logits }.to_device(Device::Cpu).to_kind(Kind::Float);
        let on_host = OwnedTensor::new(on_host);
        let rows = on_host.slice::<f32>().chunks_exact(vocab);
        let choices = live.iter().zip(rows).map(|(&index, row)| samplers[index].choose(row, decoding));
        let chosen = choices.collect::<Result<_>>()?;
        let mut still = Vec::new();
        let mut next = Vec::new();
        // Different devices could choose different tokens; the ranks would then deadlock.
        for (row, (&index, token)) in live.iter().zip(mesh.broadcast_numbers(chosen)?).enumerate() {
            added[index].push(token);
            if !decoding.end_tokens.contains(&token) && !stop(index, &added[index]) {
                still.push(row as i64);
                next.push(token);
            }
        }
        progress(count)?;
        if still.is_empty() || count == decoding.max_new_tokens {
            break;
        }
        if still.len() < live.len() {
            decoder.keep(&still);
            live = still.iter().map(|&row| live[row as usize]).collect();
        }
        logits = decoder.step(&Tensor::from_slice(&next).to_device(device))?;
    }
    Ok(added)
}

/// The model with its caches: one row per live sequence.
struct Decoder<'a, 'b> {
    chain: &'a Chain<'b>,
    caches: Vec<LayerCache>,
    /// Position of the next token of each sequence, i64 `[B]`.
    positions: Tensor,
}

impl<'a, 'b> Decoder<'a, 'b> {
    fn new(chain: &'a Chain<'b>, prompts: &[Prompt], max_new_tokens: u64) -> Result<Self> {
        let device = chain.device();
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0) as i64;
        let capacity = longest + max_new_tokens as i64;
        let batch = prompts.len() as i64;
        let caches = (0..chain.model.num_hidden_layers)
            .map(|layer| LayerCache::new(chain.model, layer, batch, capacity, (chain.kind, device)))
            .collect();
        let lengths: Vec<i64> = prompts.iter().map(|prompt| prompt.tokens.len() as i64).collect();
        Ok(Self { chain, caches, positions: Tensor::from_slice(&lengths).to_device(device) })
    }

    /// Fills the caches from the prompts, batching those of equal length. Returns the logits after each prompt,
    /// `[B, V]`.
    fn prefill(&mut self, prompts: &[Prompt]) -> Result<Tensor> {
        let device = self.positions.device();
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&index| prompts[index].tokens.len());
        let mut last: Vec<Option<Tensor>> = (0..prompts.len()).map(|_| None).collect();
        for group in order.chunk_by(|&a, &b| prompts[a].tokens.len() == prompts[b].tokens.len()) {
            let rows: Vec<&[i64]> = group.iter().map(|&index| prompts[index].tokens.as_slice()).collect();
            let length = rows[0].len() as i64;
            let x = self.chain.hidden(&Sequences::new(&rows, None, device), |layer, activations| {
                let (keys, values) = activations.keys_values();
                for (row, &index) in group.iter().enumerate() {
                    self.caches[layer as usize].fill(
                        index as i64,
                        &keys.get(row as i64),
                        &values.get(row as i64),
                    );
                }
                Ok(())
            })?;
            for (row, &index) in group.iter().enumerate() {
                last[index] = Some(x.narrow(0, (row as i64 + 1) * length - 1, 1));
            }
        }
        let last: Vec<Tensor> = last.into_iter().flatten().collect();
        self.chain.head(&Tensor::cat(&last, 0))
    }

    /// Processes one token of every live sequence, i64 `[B]`. Returns the logits after it, `[B, V]`.
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        let Chain { model, weights, kind } = self.chain;
        let embedding = &weights.unit(EMBEDDING_UNIT)?[Parameter::Embedding.index()];
        let mut x = embed(embedding, tokens, *kind); // [B, D]
        let rotation = Rotation::new(model, &self.positions, *kind)?;
        for (layer, cache) in self.caches.iter_mut().enumerate() {
            let block = BlockWeights::new(&weights.unit(block_unit(layer))?);
            let (q, k, v) = project_queries(model, &x, &block, &rotation);
            cache.append(&self.positions, &k, &v);
            let rows = cache.attend(&q, block.sinks(), &self.positions); // [B, H*C]
            x = feed_forward(model, &x, &block.project_out(&rows), &block)?;
        }
        self.positions += 1;
        self.chain.head(&x)
    }

    /// Keeps only the sequences `rows`.
    fn keep(&mut self, rows: &[i64]) {
        let rows = Tensor::from_slice(rows).to_device(self.positions.device());
        self.positions = self.positions.index_select(0, &rows);
        for cache in &mut self.caches {
            cache.keep(&rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::Shards;
    use crate::model::Initial;
    use oss_config::{Model, Preset};

    fn model() -> Model {
        Model {
            vocab_size: Some(97),
            sliding_window: 6,
            initializer_range: 0.3,
            intermediate_size: 40,
            ..Preset::Tiny.model()
        }
    }

    fn greedy(max_new_tokens: u64) -> Decoding {
        Decoding { max_new_tokens, temperature: 0.0, top_k: None, top_p: None, seed: 0, end_tokens: vec![] }
    }

    fn prompts(lengths: &[usize]) -> Vec<Prompt> {
        let tokens = |row: usize, n: usize| (0..n).map(|i| ((i * 31 + row * 17 + 5) % 97) as i64).collect();
        lengths
            .iter()
            .enumerate()
            .map(|(row, &n)| Prompt { tokens: tokens(row, n), stream: row as u64 })
            .collect()
    }

    fn with_chain<T>(test: impl FnOnce(&Chain<'_>) -> T) -> T {
        let model = model();
        let mut source = Initial::new(&model, 1);
        let mesh = Mesh::alone(Device::Cpu);
        let weights = Shards::load(&model, &mut source, &mesh, Kind::Double).unwrap();
        test(&Chain { model: &model, weights: &weights, kind: Kind::Double })
    }

    #[test]
    fn cached_decoding_matches_full_forward_passes() {
        with_chain(|chain| {
            let mesh = Mesh::alone(Device::Cpu);
            let prompts = prompts(&[3, 9, 1, 9]);
            let cached = generate(chain, &mesh, &prompts, &greedy(40), |_, _| false, |_| Ok(())).unwrap();
            for (prompt, cached) in prompts.iter().zip(cached) {
                let mut tokens = prompt.tokens.clone();
                for _ in 0..40 {
                    let logits = chain.logits(&Sequences::new(&[&tokens], None, Device::Cpu)).unwrap();
                    tokens.push(logits.get(0).get(-1).argmax(-1, false).int64_value(&[]));
                }
                assert_eq!(cached, tokens[prompt.tokens.len()..]);
            }
        });
    }

    #[test]
    fn a_sequence_is_sampled_identically_alone_and_in_a_batch() {
        with_chain(|chain| {
            let mesh = Mesh::alone(Device::Cpu);
            let decoding = Decoding { temperature: 1.0, top_p: Some(0.9), seed: 5, ..greedy(20) };
            let prompts = prompts(&[4, 7, 2]);
            let together = generate(chain, &mesh, &prompts, &decoding, |_, _| false, |_| Ok(())).unwrap();
            for (prompt, together) in prompts.iter().zip(together) {
                let alone =
                    generate(chain, &mesh, std::slice::from_ref(prompt), &decoding, |_, _| false, |_| Ok(()));
                assert_eq!(alone.unwrap()[0], together);
            }
        });
    }

    #[test]
    fn a_sequence_stops_at_an_end_token_while_others_continue() {
        with_chain(|chain| {
            let mesh = Mesh::alone(Device::Cpu);
            let prompts = prompts(&[4, 7]);
            let free = generate(chain, &mesh, &prompts, &greedy(12), |_, _| false, |_| Ok(())).unwrap();
            let end = free[0][5];
            let first = free[0].iter().position(|&token| token == end).unwrap();
            let decoding = Decoding { end_tokens: vec![end], ..greedy(12) };
            let ended = generate(chain, &mesh, &prompts, &decoding, |_, _| false, |_| Ok(())).unwrap();
            assert_eq!(ended[0], free[0][..=first]);
            let second = free[1].iter().position(|&token| token == end).map_or(12, |at| at + 1);
            assert_eq!(ended[1], free[1][..second]);
        });
    }

    /// Compares the logits after a prompt and one cached token with those of f32, by relative root mean square error.
    #[test]
    fn logits_of_int8_weights_are_close_to_those_of_f32() {
        let (model, mesh) = (model(), Mesh::alone(Device::Cpu));
        let logits = |in_int8: bool| {
            let mut source = Initial::new(&model, 1);
            let mut weights = Shards::load(&model, &mut source, &mesh, Kind::Float).unwrap();
            if in_int8 {
                weights = weights.in_int8(&model).unwrap();
            }
            let chain = Chain { model: &model, weights: &weights, kind: Kind::Float };
            let prompts = prompts(&[20, 3]);
            let mut decoder = Decoder::new(&chain, &prompts, 4).unwrap();
            let prefilled = decoder.prefill(&prompts).unwrap();
            Tensor::cat(&[prefilled, decoder.step(&Tensor::from_slice(&[5i64, 6])).unwrap()], 0)
        };
        let (seen, expected) = (logits(true), logits(false));
        let off = f64::try_from((seen - &expected).square().mean(Kind::Double).sqrt()).unwrap();
        let relative = off / f64::try_from(expected.square().mean(Kind::Double).sqrt()).unwrap();
        assert!((1e-4..0.06).contains(&relative), "{relative}");
    }
}
