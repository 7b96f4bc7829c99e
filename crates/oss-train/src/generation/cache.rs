//! The key/value cache, per layer: a ring buffer, so that a sliding-window layer stores only its window.
//!
//! B: batch size, H: query heads, K: key/value heads, C: head dimension, S: slots of the ring buffer.

use tch::{Device, Kind, Tensor};

use oss_config::{LayerType, Model};

/// The cache of one layer. Position p is stored in slot `p % S`.
#[derive(Debug)]
pub struct LayerCache {
    /// Keys after rotary embedding, `[B, K, S, C]`.
    keys: Tensor,
    /// Values, `[B, K, S, C]`.
    values: Tensor,
    /// Position of the token in each slot, i64 `[B, S]`, or [`EMPTY`].
    held: Tensor,
    slots: i64,
}

/// The position of an empty slot: later than any query, so it is always masked.
const EMPTY: i64 = i64::MAX;

impl LayerCache {
    /// An empty cache for sequences of up to `capacity` tokens.
    pub fn new(model: &Model, layer: i64, batch: i64, capacity: i64, options: (Kind, Device)) -> Self {
        let slots = match model.layer_type(layer) {
            LayerType::SlidingAttention => capacity.min(model.sliding_window),
            LayerType::FullAttention => capacity,
        };
        let zeros = || Tensor::zeros([batch, model.num_key_value_heads, slots, model.head_dim], options);
        let held = Tensor::full([batch, slots], EMPTY, (Kind::Int64, options.1));
        Self { keys: zeros(), values: zeros(), held, slots }
    }

    /// Stores the whole prompt of sequence `row`: keys and values `[T, K, C]`.
    pub fn fill(&mut self, row: i64, keys: &Tensor, values: &Tensor) {
        let length = keys.size()[0];
        let kept = length.min(self.slots);
        let positions = Tensor::arange_start(length - kept, length, (Kind::Int64, keys.device()));
        let slots = positions.remainder(self.slots);
        let part = |x: &Tensor| x.narrow(0, length - kept, kept).transpose(0, 1); // [K, kept, C]
        let _ = self.keys.get(row).index_copy_(1, &slots, &part(keys));
        let _ = self.values.get(row).index_copy_(1, &slots, &part(values));
        let _ = self.held.get(row).index_copy_(0, &slots, &positions);
    }

    /// Stores one token for every sequence, at `positions [B]`: keys and values `[B, K, C]`.
    pub fn append(&mut self, positions: &Tensor, keys: &Tensor, values: &Tensor) {
        if oss_kernels::supports(keys) {
            let cache = (&mut self.keys, &mut self.values, &mut self.held);
            return oss_kernels::append(cache, positions, (keys, values));
        }
        let slots = positions.remainder(self.slots).unsqueeze(1); // [B, 1]
        let (b, k, c) = keys.size3().unwrap_or_else(|_| unreachable!("keys have three axes"));
        let wide = slots.view([b, 1, 1, 1]).expand([b, k, 1, c], false);
        let _ = self.keys.scatter_(2, &wide, &keys.unsqueeze(2));
        let _ = self.values.scatter_(2, &wide, &values.unsqueeze(2));
        let _ = self.held.scatter_(1, &slots, &positions.unsqueeze(1));
    }

    /// Attention with sinks of rotated queries `[B, H, C]` at `positions [B]` over the cached tokens: `[B, H*C]`.
    ///
    /// A ring no larger than the window holds exactly the tokens that a sliding-window layer attends to.
    pub fn attend(&self, q: &Tensor, sinks: &Tensor, positions: &Tensor) -> Tensor {
        if oss_kernels::supports(q) {
            return oss_kernels::decode_attention(
                q,
                (&self.keys, &self.values),
                &self.held,
                positions,
                sinks,
            );
        }
        let (b, h, c) = q.size3().unwrap_or_else(|_| unreachable!("queries have three axes"));
        let k = self.keys.size()[1];
        let wide = sinks.kind();
        let grouped = q.view([b, k, h / k, c]); // heads of a group share a key/value head
        let scores = grouped.matmul(&self.keys.transpose(-2, -1)).to_kind(wide) * (c as f64).powf(-0.5); // [B, K, G, S]
        let hidden = self.held.gt_tensor(&positions.unsqueeze(1)).view([b, 1, 1, self.slots]);
        let scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
        let sink = sinks.view([1, k, h / k, 1]).expand([b, k, h / k, 1], false);
        let shares = Tensor::cat(&[scores, sink], -1).softmax(-1, None::<Kind>).narrow(-1, 0, self.slots);
        shares.to_kind(q.kind()).matmul(&self.values).reshape([b, h * c])
    }

    /// Keeps only the sequences `rows`, i64 `[B']`.
    pub fn keep(&mut self, rows: &Tensor) {
        for tensor in [&mut self.keys, &mut self.values, &mut self.held] {
            *tensor = tensor.index_select(0, rows);
        }
    }
}
