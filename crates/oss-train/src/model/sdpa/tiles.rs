//! Attention by libtorch operations, for dtypes and devices that no kernel supports.
//!
//! The queries are split into tiles, each with exactly the keys it can see, so that a sliding-window layer costs T
//! times the window, and a document the square of its own length.

use std::collections::HashMap;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{Document, Saved, Visibility, documents};
use crate::model::wide_kind;

/// Queries `start..start + len` of one or all rows, and the keys from `first_key` to the last query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    /// One row, or all if unset.
    row: Option<i64>,
    first_key: i64,
    start: i64,
    len: i64,
}

/// Minimum number of queries per tile of a sliding-window layer. A tile also has at least as many as the window, so
/// that at most half of the scores are masked.
const MIN_TILE: i64 = 128;

fn tiles(q: &Tensor, visibility: &Visibility) -> Vec<Tile> {
    let length = q.size()[1];
    let whole: Vec<(Option<i64>, i64, i64)> = match &visibility.documents {
        None => vec![(None, 0, length)],
        Some(_) => documents(q, visibility)
            .into_iter()
            .map(|Document { row, tokens }| (Some(row as i64), tokens.start as i64, tokens.len() as i64))
            .collect(),
    };
    let mut tiles = Vec::new();
    for (row, begin, len) in whole {
        let step = visibility.window.map_or(len, |window| window.max(MIN_TILE)).max(1);
        for start in (begin..begin + len).step_by(step as usize) {
            let first_key = visibility.window.map_or(begin, |window| (start - window + 1).max(begin));
            tiles.push(Tile { row, first_key, start, len: step.min(begin + len - start) });
        }
    }
    tiles
}

/// Additive masks by (queries, keys); `None` if a plain causal mask suffices.
#[derive(Default)]
struct Masks(HashMap<(i64, i64), Tensor>);

impl Masks {
    fn of(&mut self, tile: &Tile, window: Option<i64>, like: &Tensor) -> Option<&Tensor> {
        let (queries, keys) = (tile.len, tile.start + tile.len - tile.first_key);
        if queries == keys && window.is_none_or(|window| keys <= window) {
            return None;
        }
        Some(self.0.entry((queries, keys)).or_insert_with(|| {
            let options = (Kind::Int64, like.device());
            let query = (Tensor::arange(queries, options) + (keys - queries)).unsqueeze(1);
            let distance = query - Tensor::arange(keys, options).unsqueeze(0); // [queries, keys]
            let mut hidden = distance.lt(0);
            if let Some(window) = window {
                hidden = hidden.logical_or(&distance.ge(window));
            }
            Tensor::zeros([queries, keys], (like.kind(), like.device()))
                .masked_fill(&hidden, f64::NEG_INFINITY)
                .unsqueeze(0)
                .unsqueeze(0)
        }))
    }
}

pub fn forward(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    sinks: &Tensor,
    visibility: &Visibility,
    scale: f64,
) -> Result<Saved> {
    let (b, t, h, _) = q.size4()?;
    let lse_kind = wide_kind(q.kind());
    let tiles = tiles(q, visibility);
    let (mut outputs, mut lses) = (None, None);
    let mut masks = Masks::default();
    for tile in &tiles {
        let mask = masks.of(tile, visibility.window, q);
        let (query, key, value) = (queries_of(q, tile), keys_of(k, tile, h), keys_of(v, tile, h));
        let (o, lse) = tile_forward(&query, &key, &value, mask, scale); // [b, H, t, C], [b, H, t]
        let corrected = lse.logaddexp(&sinks.unsqueeze(-1));
        let o = (o * (lse - &corrected).exp().unsqueeze(-1)).to_kind(q.kind());
        let (o, lse) = (o.transpose(1, 2), corrected.transpose(1, 2)); // [b, t, H, C], [b, t, H]
        if tiles.len() == 1 {
            return Ok(Saved { output: o.contiguous(), logsumexp: lse.contiguous(), flash: None });
        }
        let outputs = outputs.get_or_insert_with(|| q.empty_like());
        let lses = lses.get_or_insert_with(|| Tensor::empty([b, t, h], (lse_kind, q.device())));
        place(outputs, tile).copy_(&o);
        place(lses, tile).copy_(&lse);
    }
    let (Some(output), Some(logsumexp)) = (outputs, lses) else { anyhow::bail!("attention over no tokens") };
    Ok(Saved { output, logsumexp, flash: None })
}

pub fn backward(
    grad: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    saved: &Saved,
    visibility: &Visibility,
    scale: f64,
) -> Result<[Tensor; 3]> {
    let h = q.size()[2];
    let tiles = tiles(q, visibility);
    let alone = tiles.len() == 1;
    let mut grads = if alone { None } else { Some([q, k, v].map(Tensor::zeros_like)) };
    let mut masks = Masks::default();
    for tile in &tiles {
        let mask = masks.of(tile, visibility.window, q);
        let (query, key, value) = (queries_of(q, tile), keys_of(k, tile, h), keys_of(v, tile, h));
        let o = queries_of(&saved.output, tile);
        let lse = place(&saved.logsumexp, tile).transpose(1, 2);
        let [dq, dk, dv] =
            tile_backward(&queries_of(grad, tile), (&query, &key, &value), (&o, &lse), mask, scale);
        let dq = dq.transpose(1, 2); // [b, t, H, C]
        let [dk, dv] = [dk, dv].map(|wide| sum_groups(&wide, k.size()[2]));
        match &mut grads {
            None => return Ok([dq, dk, dv]),
            Some([all_dq, all_dk, all_dv]) => {
                place(all_dq, tile).copy_(&dq);
                let _ = place_keys(all_dk, tile).g_add_(&dk);
                let _ = place_keys(all_dv, tile).g_add_(&dv);
            }
        }
    }
    grads.ok_or_else(|| anyhow::anyhow!("attention over no tokens"))
}

fn rows_of(x: &Tensor, tile: &Tile) -> Tensor {
    tile.row.map_or_else(|| x.shallow_clone(), |row| x.narrow(0, row, 1))
}

/// The tile's queries of `x [B, T, ..]`, a view.
fn place(x: &Tensor, tile: &Tile) -> Tensor {
    rows_of(x, tile).narrow(1, tile.start, tile.len)
}

/// The tile's keys of `x [B, T, ..]`, a view.
fn place_keys(x: &Tensor, tile: &Tile) -> Tensor {
    rows_of(x, tile).narrow(1, tile.first_key, tile.start + tile.len - tile.first_key)
}

/// `[b, H, t, C]`.
fn queries_of(x: &Tensor, tile: &Tile) -> Tensor {
    place(x, tile).transpose(1, 2)
}

/// `[b, H, keys, C]`, each key/value head repeated for its group of query heads.
fn keys_of(x: &Tensor, tile: &Tile, heads: i64) -> Tensor {
    let x = place_keys(x, tile).transpose(1, 2);
    let (b, k, t, c) = x.size4().unwrap_or_else(|_| unreachable!("keys have four axes"));
    if k == heads {
        return x;
    }
    x.unsqueeze(2).expand([b, k, heads / k, t, c], false).reshape([b, heads, t, c])
}

/// Gradients `[b, H, keys, C]` of repeated heads to `[b, keys, K, C]`.
fn sum_groups(x: &Tensor, kv_heads: i64) -> Tensor {
    let (b, h, t, c) = x.size4().unwrap_or_else(|_| unreachable!("keys have four axes"));
    let summed = if h == kv_heads {
        x.shallow_clone()
    } else {
        x.reshape([b, kv_heads, h / kv_heads, t, c]).sum_dim_intlist([2i64].as_slice(), false, None)
    };
    summed.transpose(1, 2)
}

fn tile_forward(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, scale: f64) -> (Tensor, Tensor) {
    if q.device() == Device::Cpu {
        return Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            q,
            k,
            v,
            0.0,
            mask.is_none(),
            mask,
            scale,
        );
    }
    let scores = scores(q, k, mask, scale);
    let lse = scores.logsumexp([-1i64].as_slice(), false);
    let output = (scores - lse.unsqueeze(-1)).exp().matmul(&v.to_kind(lse.kind()));
    (output, lse)
}

fn tile_backward(
    grad: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    (o, lse): (&Tensor, &Tensor),
    mask: Option<&Tensor>,
    scale: f64,
) -> [Tensor; 3] {
    if q.device() == Device::Cpu {
        let causal = mask.is_none();
        let (dq, dk, dv) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, o, lse, 0.0, causal, mask, scale,
        );
        return [dq, dk, dv];
    }
    let probabilities = (scores(q, k, mask, scale) - lse.unsqueeze(-1)).exp();
    let [grad, o, wide_q, wide_k, wide_v] = [grad, o, q, k, v].map(|x| x.to_kind(lse.kind()));
    let dv = probabilities.transpose(-2, -1).matmul(&grad);
    let projection = (&grad * o).sum_dim_intlist([-1i64].as_slice(), true, None::<Kind>);
    let ds = probabilities * (grad.matmul(&wide_v.transpose(-2, -1)) - projection) * scale;
    let dk = ds.transpose(-2, -1).matmul(&wide_q);
    let dq = ds.matmul(&wide_k);
    [dq, dk, dv].map(|x| x.to_kind(q.kind()))
}

/// Masked scores in f32 (f64 for f64), for devices and kinds without a flash kernel.
fn scores(q: &Tensor, k: &Tensor, mask: Option<&Tensor>, scale: f64) -> Tensor {
    let kind = wide_kind(q.kind());
    let scores = q.to_kind(kind).matmul(&k.to_kind(kind).transpose(-2, -1)) * scale;
    match mask {
        Some(mask) => scores + mask,
        None => {
            let t = q.size()[2];
            let hidden = Tensor::ones([t, t], (Kind::Bool, q.device())).triu(1);
            scores.masked_fill(&hidden, f64::NEG_INFINITY)
        }
    }
}
