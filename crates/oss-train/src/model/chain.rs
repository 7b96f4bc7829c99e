//! The forward pass through the whole chain, for evaluation and decoding; training drives the units itself.

use std::sync::Arc;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{
    Activations, Block, BlockWeights, EMBEDDING_UNIT, HeadWeights, Parameter, Rotation, Weights, block_unit,
    head, head_unit,
};
use oss_config::Model;

/// A batch of sequences of equal length.
#[derive(Debug)]
pub struct Sequences {
    /// Input tokens, i64 `[B, T]`.
    pub tokens: Tensor,
    /// Document lengths of each row, if attention is restricted to each token's own document.
    pub documents: Option<Arc<Vec<Vec<i64>>>>,
}

impl Sequences {
    /// Builds a batch on `device` from rows of equal length. With `end_of_text`, tokens attend only to their own
    /// document, and that token starts one: in the data it ends the previous document, and it is the only context from
    /// which the next document's first token is predicted.
    pub fn new(rows: &[&[i64]], end_of_text: Option<i64>, device: Device) -> Self {
        let length = rows.first().map_or(0, |row| row.len()) as i64;
        let tokens = Tensor::from_slice(&rows.concat()).view([rows.len() as i64, length]).to_device(device);
        let documents =
            end_of_text.map(|end| Arc::new(rows.iter().map(|row| document_lengths(row, end)).collect()));
        Self { tokens, documents }
    }
}

fn document_lengths(row: &[i64], end_of_text: i64) -> Vec<i64> {
    let starts = (1..row.len()).filter(|&i| row[i] == end_of_text);
    let mut edges: Vec<usize> = std::iter::once(0).chain(starts).collect();
    edges.push(row.len());
    edges.windows(2).map(|pair| (pair[1] - pair[0]) as i64).collect()
}

/// The architecture and the source of its weights.
pub struct Chain<'a> {
    /// The architecture.
    pub model: &'a Model,
    /// The weights, one unit at a time.
    pub weights: &'a dyn Weights,
    /// Dtype of the matrix products.
    pub kind: Kind,
}

impl Chain<'_> {
    /// Runs tokens `[B, T]` through all blocks and returns the last one's rows `[N, D]`; `seen` is called with each
    /// layer's activations.
    pub fn hidden(
        &self,
        sequences: &Sequences,
        mut seen: impl FnMut(i64, &Activations) -> Result<()>,
    ) -> Result<Tensor> {
        let (batch, length) = sequences.tokens.size2()?;
        let embedding = &self.weights.unit(EMBEDDING_UNIT)?[Parameter::Embedding.index()];
        let mut x = embed(embedding, &sequences.tokens, self.kind);
        let rotation = Rotation::consecutive(self.model, length, self.kind, x.device())?;
        for layer in 0..self.model.num_hidden_layers {
            let weights = BlockWeights::new(&self.weights.unit(block_unit(layer as usize))?);
            let documents = sequences.documents.clone();
            let block = Block { model: self.model, layer, rotation: &rotation, documents, batch };
            let (y, activations) = block.forward(&x, &weights, None)?;
            seen(layer, &activations)?;
            x = y;
        }
        Ok(x)
    }

    /// Logits `[B, T, V]`, f32: for tests and short texts, since the whole tensor is materialized.
    pub fn logits(&self, sequences: &Sequences) -> Result<Tensor> {
        let (b, t) = sequences.tokens.size2()?;
        let x = self.hidden(sequences, |_, _| Ok(()))?;
        Ok(self.head(&x)?.view([b, t, -1]))
    }

    /// Logits `[N, V]` for the last block's rows.
    pub fn head(&self, x: &Tensor) -> Result<Tensor> {
        Ok(head::logits(self.model, x, &self.head_weights()?))
    }

    /// Negative log-likelihood of each target `[N]`, given the last block's rows.
    pub fn losses(&self, x: &Tensor, targets: &Tensor) -> Result<Tensor> {
        Ok(head::losses(self.model, x, targets, &self.head_weights()?))
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.weights.device()
    }

    fn head_weights(&self) -> Result<HeadWeights> {
        Ok(HeadWeights::new(&self.weights.unit(head_unit(self.model))?))
    }
}

/// Looks up the tokens' rows `[N, D]` in the embedding matrix `[V, D]` and casts them to `kind`.
pub fn embed(matrix: &Tensor, tokens: &Tensor, kind: Kind) -> Tensor {
    matrix.index_select(0, &tokens.flatten(0, -1)).to_kind(kind)
}

/// Whether training can hand unit `index` its matrices in f32 when the compute dtype differs, because the unit casts
/// only what it reads: rows of the embedding or, on the CPU, tiles of the head. Blocks read their matrices repeatedly,
/// so casting on read does not pay off there.
pub fn casts_on_read(model: &Model, index: usize, kind: Kind, device: Device) -> bool {
    index == EMBEDDING_UNIT || (index == head_unit(model) && kind == Kind::BFloat16 && device == Device::Cpu)
}

/// Rotated queries `[B, H, C]`, keys and values `[B, K, C]` of one new row per sequence, for decoding: `x [B, D]` at
/// the rotation's B positions.
pub fn project_queries(
    model: &Model,
    x: &Tensor,
    weights: &BlockWeights,
    rotation: &Rotation,
) -> (Tensor, Tensor, Tensor) {
    let (normalized, _) = super::norm::forward(x, &weights.attention.norm, model.rms_norm_eps);
    // Each row has its own position, just like the rows of a single sequence.
    let (q, k, v) = super::attention::project(model, &normalized, &weights.attention, rotation, 1);
    (q.squeeze_dim(0), k.squeeze_dim(0), v.squeeze_dim(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_text_starts_a_document() {
        assert_eq!(document_lengths(&[5, 6, 0, 7, 0, 0, 8], 0), [2, 2, 1, 2]);
        assert_eq!(document_lengths(&[0, 6, 7], 0), [3]);
        assert_eq!(document_lengths(&[5], 0), [1]);
    }
}
