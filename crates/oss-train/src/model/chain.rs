//! A forward pass through the whole chain, for evaluation and decoding; training drives the units itself.

use std::sync::Arc;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{
    Activations, Block, BlockWeights, EMBEDDING_UNIT, HeadWeights, Parameter, Rotation, Weights, block_unit,
    head, head_unit,
};
use oss_config::Model;

/// Sequences of one length that pass through the chain together.
#[derive(Debug)]
pub struct Sequences {
    /// Input tokens, i64 `[B, T]`.
    pub tokens: Tensor,
    /// Document lengths of each row, where tokens see only their own.
    pub documents: Option<Arc<Vec<Vec<i64>>>>,
}

impl Sequences {
    /// Rows of one length on `device`. With `end_of_text`, tokens see only their own document, which that token opens:
    /// it closes the document before it in the data, and is all that the next one's first word is predicted from.
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

/// The architecture and where its weights come from.
pub struct Chain<'a> {
    /// The architecture.
    pub model: &'a Model,
    /// The weights, a unit at a time.
    pub weights: &'a dyn Weights,
    /// Kind of the matrix products.
    pub kind: Kind,
}

impl Chain<'_> {
    /// Tokens `[B, T]` to the last block's rows `[N, D]`; `seen` is shown each layer's activations.
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

    /// Logits `[B, T, V]`, f32: for tests and short texts, since they are held whole.
    pub fn logits(&self, sequences: &Sequences) -> Result<Tensor> {
        let (b, t) = sequences.tokens.size2()?;
        let x = self.hidden(sequences, |_, _| Ok(()))?;
        Ok(self.head(&x)?.view([b, t, -1]))
    }

    /// Logits `[N, V]` of the last block's rows.
    pub fn head(&self, x: &Tensor) -> Result<Tensor> {
        Ok(head::logits(self.model, x, &self.head_weights()?))
    }

    /// Negative log-likelihood of each target `[N]` after the last block's rows.
    pub fn losses(&self, x: &Tensor, targets: &Tensor) -> Result<Tensor> {
        Ok(head::losses(self.model, x, targets, &self.head_weights()?))
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.weights.device()
    }

    fn head_weights(&self) -> Result<HeadWeights> {
        Ok(HeadWeights::new(&self.weights.unit(head_unit(self.model))?))
    }
}

/// Rows `[N, D]` of the embedding matrix `[V, D]`, in `kind`.
pub fn embed(matrix: &Tensor, tokens: &Tensor, kind: Kind) -> Tensor {
    matrix.index_select(0, &tokens.flatten(0, -1)).to_kind(kind)
}

/// Whether training can give unit `index` its matrices in f32 where the compute kind is another: it casts what it reads, which
/// are the embedding's rows and, on the CPU, a tile of the head's. Blocks read theirs again and again.
pub fn casts_on_read(model: &Model, index: usize, kind: Kind, device: Device) -> bool {
    index == EMBEDDING_UNIT || (index == head_unit(model) && kind == Kind::BFloat16 && device == Device::Cpu)
}

/// Rotated queries `[B, H, C]`, keys and values `[B, K, C]` of one new row a sequence, for decoding: `x [B, D]` at the rotation's
/// B positions.
pub fn project_queries(
    model: &Model,
    x: &Tensor,
    weights: &BlockWeights,
    rotation: &Rotation,
) -> (Tensor, Tensor, Tensor) {
    let (normalised, _) = super::norm::forward(x, &weights.attention.norm, model.rms_norm_eps);
    // Rows at positions of their own, as those of one sequence are.
    let (q, k, v) = super::attention::project(model, &normalised, &weights.attention, rotation, 1);
    (q.squeeze_dim(0), k.squeeze_dim(0), v.squeeze_dim(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_text_opens_a_document() {
        assert_eq!(document_lengths(&[5, 6, 0, 7, 0, 0, 8], 0), [2, 2, 1, 2]);
        assert_eq!(document_lengths(&[0, 6, 7], 0), [3]);
        assert_eq!(document_lengths(&[5], 0), [1]);
    }
}
