//! RMSNorm (arXiv:1910.07467): `weight * x / rms(x)`, computed in f32, then cast.
//!
//! N tokens, D hidden.

use tch::{Kind, Tensor};

use super::wide;

/// What the backward pass needs: the input is kept by the caller.
#[derive(Debug)]
pub struct Saved {
    /// One over the root mean square of each row, f32 `[N, 1]`.
    inverse_rms: Tensor,
}

/// `x [N, D]` in the compute kind to the normalised rows in the same kind.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> (Tensor, Saved) {
    let wide_x = wide(x);
    let inverse_rms = (wide_x.square().mean_dim([-1i64].as_slice(), true, None) + eps).rsqrt(); // [N, 1]
    let y = (wide_x * &inverse_rms * weight).to_kind(x.kind());
    (y, Saved { inverse_rms })
}

/// The gradient of the input; the weight's is added to `grad_weight`.
pub fn backward(
    grad: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    saved: &Saved,
    grad_weight: &mut Tensor,
) -> Tensor {
    let normalised = wide(x) * &saved.inverse_rms; // [N, D]
    let grad = wide(grad);
    let _ =
        grad_weight.g_add_(&(&grad * &normalised).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>));
    let grad = grad * weight;
    let projection = (&grad * &normalised).mean_dim([-1i64].as_slice(), true, None::<Kind>); // [N, 1]
    ((grad - normalised * projection) * &saved.inverse_rms).to_kind(x.kind())
}
