//! Causal scaled dot-product attention with one learned sink logit per head, without materialised scores.
//!
//! A sink joins the softmax and has no value, so stock flash attention gives it exactly: `lse' = logaddexp(lse, s)` and
//! `o' = o * exp(lse - lse')`. The backward hands (o', lse') to the stock flash backward, which then sees the
//! probabilities with the sink in them; the sink's own gradient is `-sum(exp(s - lse') * rowsum(dO * o'))`.
//!
//! On the CPU the queries are cut into tiles, each with exactly the keys it can see, so that a sliding layer's work
//! grows with T times the window, and documents cost only their own squares.
//!
//! B batch, T time, H query heads, K key/value heads, C head dim.

use std::collections::HashMap;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::torch::{self, FlashForward, Packed};

/// Which keys the queries of one pass may see.
#[derive(Clone, Debug)]
pub struct Visibility {
    /// The last so many keys, the query's own included; all earlier ones where unset.
    pub window: Option<i64>,
    /// Lengths of the documents of each row, in order, where tokens see only their own.
    pub documents: Option<std::sync::Arc<Vec<Vec<i64>>>>,
}

/// What the backward pass needs beside query, key and value.
#[derive(Debug)]
pub struct Saved {
    /// `[B, T, H, C]`.
    pub output: Tensor,
    /// With the sink in it: f32 `[B, T, H]` (CUDA flash: as its kernel lays it out).
    logsumexp: Tensor,
    flash: Option<(FlashForward, Option<Packed>)>,
}

/// Queries `start..start + len` of some rows, and the keys from `first_key` to the last query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    /// All rows, or one.
    row: Option<i64>,
    first_key: i64,
    start: i64,
    len: i64,
}

/// Queries of a tile of a sliding layer; at least the window, so that at most half of the scores are masked.
const LEAST_TILE: i64 = 128;

fn tiles(rows: i64, length: i64, visibility: &Visibility) -> Vec<Tile> {
    let whole: Vec<(Option<i64>, i64, i64)> = match &visibility.documents {
        None => vec![(None, 0, length)],
        Some(documents) => (0..rows)
            .flat_map(|row| {
                documents[row as usize].iter().scan(0, move |start, &len| {
                    *start += len;
                    Some((Some(row), *start - len, len))
                })
            })
            .collect(),
    };
    let mut tiles = Vec::new();
    for (row, begin, len) in whole {
        let step = visibility.window.map_or(len, |window| window.max(LEAST_TILE)).max(1);
        for start in (begin..begin + len).step_by(step as usize) {
            let first_key = visibility.window.map_or(begin, |window| (start - window + 1).max(begin));
            tiles.push(Tile { row, first_key, start, len: step.min(begin + len - start) });
        }
    }
    tiles
}

/// Additive masks by (queries, keys, window); `None` where plain causality is all there is.
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

/// `[B, T, H, C]` queries, `[B, T, K, C]` keys and values (already rotated) and f32 `[H]` sinks to what `Saved.output` holds.
pub fn forward(q: &Tensor, k: &Tensor, v: &Tensor, sinks: &Tensor, visibility: &Visibility) -> Result<Saved> {
    let scale = (q.size()[3] as f64).powf(-0.5);
    if uses_cuda_flash(q) {
        return cuda_forward(q, k, v, sinks, visibility, scale);
    }
    let (b, t, h, _) = q.size4()?;
    let lse_kind = if q.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let tiles = tiles(b, t, visibility);
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

/// Gradients of queries, keys and values; the sinks' is added to `grad_sinks`.
pub fn backward(
    grad: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    sinks: &Tensor,
    saved: &Saved,
    visibility: &Visibility,
    grad_sinks: &mut Tensor,
) -> Result<[Tensor; 3]> {
    let scale = (q.size()[3] as f64).powf(-0.5);
    // [B, T, H] in the logsumexp's kind.
    let projection =
        (grad * &saved.output).to_kind(sinks.kind()).sum_dim_intlist([-1i64].as_slice(), false, None);
    let lse = match &saved.flash {
        None => saved.logsumexp.shallow_clone(),
        Some(_) => cuda_lse_by_token(&saved.logsumexp, q),
    };
    let share = (sinks - lse).exp(); // the sink's probability
    let _ = grad_sinks.g_sub_(&(share * projection).sum_dim_intlist([0i64, 1].as_slice(), false, None));
    if let Some((flash, packed)) = &saved.flash {
        return cuda_backward(grad, (q, k, v), saved, flash, packed.as_ref(), visibility, scale);
    }
    let (b, t, h, _) = q.size4()?;
    let tiles = tiles(b, t, visibility);
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
    let kind = if q.kind() == Kind::Double { Kind::Double } else { Kind::Float };
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

fn uses_cuda_flash(q: &Tensor) -> bool {
    q.device().is_cuda() && matches!(q.kind(), Kind::BFloat16 | Kind::Half) && q.size()[3] % 8 == 0
}

/// One long row of all documents, where there are any.
fn pack(q: &Tensor, visibility: &Visibility) -> Result<Option<Packed>> {
    let Some(documents) = &visibility.documents else { return Ok(None) };
    let mut ends = vec![0i32];
    let mut max_length = 0;
    for &len in documents.iter().flatten() {
        ends.push(ends[ends.len() - 1] + len as i32);
        max_length = max_length.max(len);
    }
    Ok(Some(Packed { cum_seq: torch::upload(&ends, q.device())?, max_length }))
}

fn packed_view(x: &Tensor, packed: Option<&Packed>) -> Tensor {
    if packed.is_some() { x.flatten(0, 1) } else { x.shallow_clone() }
}

fn cuda_forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sinks: &Tensor,
    visibility: &Visibility,
    scale: f64,
) -> Result<Saved> {
    let packed = pack(q, visibility)?;
    let [fq, fk, fv] = [q, k, v].map(|x| packed_view(x, packed.as_ref()));
    let flash = torch::flash_attention_forward((&fq, &fk, &fv), packed.as_ref(), scale, visibility.window)?;
    let corrected = flash.logsumexp.logaddexp(&sinks.unsqueeze(-1)); // [B, H, T] or [H, tokens]
    let factor = cuda_lse_by_token(&(&flash.logsumexp - &corrected).exp(), q);
    let output = (flash.output.view_as(q) * factor.unsqueeze(-1)).to_kind(q.kind());
    Ok(Saved { output, logsumexp: corrected, flash: Some((flash, packed)) })
}

/// `[B, H, T]` or packed `[H, tokens]` to `[B, T, H]`.
fn cuda_lse_by_token(lse: &Tensor, q: &Tensor) -> Tensor {
    let size = q.size();
    let (b, t, h) = (size[0], size[1], size[2]);
    if lse.dim() == 2 { lse.transpose(0, 1).reshape([b, t, h]) } else { lse.transpose(1, 2) }
}

fn cuda_backward(
    grad: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    saved: &Saved,
    flash: &FlashForward,
    packed: Option<&Packed>,
    visibility: &Visibility,
    scale: f64,
) -> Result<[Tensor; 3]> {
    let [grad, fq, fk, fv, output] =
        [grad, q, k, v, &saved.output].map(|x| packed_view(&x.contiguous(), packed));
    let grads = torch::flash_attention_backward(
        &grad,
        (&fq, &fk, &fv),
        (&output, &saved.logsumexp),
        flash,
        packed,
        scale,
        visibility.window,
    )?;
    let [dq, dk, dv] = grads;
    Ok([dq.view_as(q), dk.view_as(k), dv.view_as(v)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// Eager attention with the sink as one more column, through libtorch's autograd: the oracle.
    fn eager(q: &Tensor, k: &Tensor, v: &Tensor, sinks: &Tensor, visibility: &Visibility) -> Tensor {
        let (b, t, h, c) = q.size4().unwrap();
        let groups = h / k.size()[2];
        let [k, v] = [k, v].map(|x| x.transpose(1, 2).repeat_interleave_self_int(groups, 1, None::<i64>));
        let scores = q.transpose(1, 2).matmul(&k.transpose(-2, -1)) / (c as f64).sqrt();
        let position = Tensor::arange(t, (Kind::Int64, Device::Cpu));
        let distance = position.unsqueeze(1) - position.unsqueeze(0);
        let mut hidden = distance.lt(0).unsqueeze(0).expand([b, t, t], false).copy();
        if let Some(window) = visibility.window {
            hidden = hidden.logical_or(&distance.ge(window));
        }
        if let Some(documents) = &visibility.documents {
            let ids: Vec<i64> = documents
                .iter()
                .flat_map(|row| row.iter().enumerate().flat_map(|(i, &n)| vec![i as i64; n as usize]))
                .collect();
            let ids = Tensor::from_slice(&ids).view([b, t]);
            hidden = hidden.logical_or(&ids.unsqueeze(1).ne_tensor(&ids.unsqueeze(2)));
        }
        let scores = scores.masked_fill(&hidden.unsqueeze(1), f64::NEG_INFINITY);
        let sink = sinks.view([1, h, 1, 1]).expand([b, h, t, 1], false);
        let p = Tensor::cat(&[scores, sink], -1).softmax(-1, None::<Kind>).narrow(-1, 0, t);
        p.matmul(&v).transpose(1, 2)
    }

    fn check(t: i64, heads: (i64, i64), visibility: Visibility) {
        tch::manual_seed(t + heads.0);
        let random = |size: &[i64]| Tensor::randn(size, DOUBLE).set_requires_grad(true);
        let (q, k, v) =
            (random(&[2, t, heads.0, 8]), random(&[2, t, heads.1, 8]), random(&[2, t, heads.1, 8]));
        let sinks = random(&[heads.0]);
        let expected = eager(&q, &k, &v, &sinks, &visibility);
        let grad = Tensor::randn_like(&expected);
        let wanted =
            Tensor::run_backward(&[(&expected * &grad).sum(None)], &[&q, &k, &v, &sinks], false, false);
        let (q, k, v, sinks) = (q.detach(), k.detach(), v.detach(), sinks.detach());
        let saved = forward(&q, &k, &v, &sinks, &visibility).unwrap();
        let mut ds = sinks.zeros_like();
        let [dq, dk, dv] = backward(&grad, (&q, &k, &v), &sinks, &saved, &visibility, &mut ds).unwrap();
        let pairs = [
            (&saved.output, &expected),
            (&dq, &wanted[0]),
            (&dk, &wanted[1]),
            (&dv, &wanted[2]),
            (&ds, &wanted[3]),
        ];
        for (i, (seen, wanted)) in pairs.into_iter().enumerate() {
            let error = f64::try_from((seen - wanted).norm() / wanted.norm()).unwrap();
            assert!(error < 1e-12, "t {t} heads {heads:?} {visibility:?}: part {i} differs by {error:e}");
        }
    }

    #[test]
    fn output_and_gradients_equal_eager_attention() {
        for t in [1, 2, 7, 130, 300] {
            for window in [None, Some(1), Some(5), Some(128), Some(150)] {
                check(t, (4, 2), Visibility { window, documents: None });
            }
        }
        check(9, (3, 3), Visibility { window: Some(4), documents: None });
        check(9, (6, 1), Visibility { window: None, documents: None });
    }

    #[test]
    fn documents_do_not_see_each_other() {
        let documents = Some(Arc::new(vec![vec![3, 290, 1, 6], vec![300]]));
        for window in [None, Some(5), Some(140)] {
            check(300, (4, 2), Visibility { window, documents: documents.clone() });
        }
    }
}
