//! Attention by libtorch's FlashAttention kernels on CUDA, which support sliding windows and packed documents.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::{Saved, Visibility};
use oss_torch::{FlashForward, Packed};

pub fn has_flash(q: &Tensor) -> bool {
    q.device().is_cuda() && matches!(q.kind(), Kind::BFloat16 | Kind::Half) && q.size()[3] % 8 == 0
}

/// Packs all documents into one long row, if documents are separated.
fn pack(q: &Tensor, visibility: &Visibility) -> Result<Option<Packed>> {
    let Some(documents) = &visibility.documents else { return Ok(None) };
    let mut ends = vec![0i32];
    let mut max_length = 0;
    for &len in documents.iter().flatten() {
        ends.push(ends[ends.len() - 1] + len as i32);
        max_length = max_length.max(len);
    }
    Ok(Some(Packed { cum_seq: oss_torch::upload(&ends, q.device())?, max_length }))
}

fn packed_view(x: &Tensor, packed: Option<&Packed>) -> Tensor {
    if packed.is_some() { x.flatten(0, 1) } else { x.shallow_clone() }
}

pub fn forward(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    sinks: &Tensor,
    visibility: &Visibility,
    scale: f64,
) -> Result<Saved> {
    let packed = pack(q, visibility)?;
    let [fq, fk, fv] = [q, k, v].map(|x| packed_view(x, packed.as_ref()));
    let flash =
        oss_torch::flash_attention_forward((&fq, &fk, &fv), packed.as_ref(), scale, visibility.window)?;
    let corrected = flash.logsumexp.logaddexp(&sinks.unsqueeze(-1)); // [B, H, T] or [H, tokens]
    let factor = lse_by_token(&(&flash.logsumexp - &corrected).exp(), q);
    let output = (flash.output.view_as(q) * factor.unsqueeze(-1)).to_kind(q.kind());
    Ok(Saved { output, logsumexp: corrected, flash: Some((flash, packed)) })
}

/// `[B, H, T]` or packed `[H, tokens]` to `[B, T, H]`.
pub fn lse_by_token(lse: &Tensor, q: &Tensor) -> Tensor {
    let size = q.size();
    let (b, t, h) = (size[0], size[1], size[2]);
    if lse.dim() == 2 { lse.transpose(0, 1).reshape([b, t, h]) } else { lse.transpose(1, 2) }
}

pub fn backward(
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
    let grads = oss_torch::flash_attention_backward(
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
