//! RMSNorm (arXiv:1910.07467): `weight * x / rms(x)`, computed in f32, then cast.
//!
//! N tokens, D hidden.

use tch::{Kind, Tensor};

use super::wide;

/// What the backward pass needs besides the input, which the caller keeps.
#[derive(Debug)]
pub struct Saved {
    eps: f64,
    /// Reciprocal of each row's root mean square, f32 `[N, 1]`.
    inverse_rms: Tensor,
}

/// Normalizes the rows of `x [N, D]`, which has the compute dtype; the result has the same dtype.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> (Tensor, Saved) {
    if oss_kernels::supports(x) {
        let (_, y, inverse_rms) = oss_kernels::rms_norm(x, None, weight, eps);
        return (y, Saved { eps, inverse_rms });
    }
    let wide_x = wide(x);
    let inverse_rms = (wide_x.square().mean_dim([-1i64].as_slice(), true, None) + eps).rsqrt(); // [N, 1]
    let y = (wide_x * &inverse_rms * weight).to_kind(x.kind());
    (y, Saved { eps, inverse_rms })
}

/// Recomputes the normalized rows of `x` exactly as [`forward`] returned them.
pub fn recompute(x: &Tensor, weight: &Tensor, saved: &Saved) -> Tensor {
    forward(x, weight, saved.eps).0
}

/// Returns the sum of `x` and `added`, and its normalized rows.
pub fn add_forward(x: &Tensor, added: &Tensor, weight: &Tensor, eps: f64) -> (Tensor, Tensor, Saved) {
    if oss_kernels::supports(x) {
        let (sum, y, inverse_rms) = oss_kernels::rms_norm(x, Some(added), weight, eps);
        return (sum, y, Saved { eps, inverse_rms });
    }
    let sum = x + added;
    let (y, saved) = forward(&sum, weight, eps);
    (sum, y, saved)
}

/// Returns the gradient of the input, plus `beside`, the gradient of the residual stream that bypasses the norm;
/// accumulates the weight's gradient into `grad_weight`.
pub fn backward(
    grad: &Tensor,
    beside: Option<&Tensor>,
    x: &Tensor,
    weight: &Tensor,
    saved: &Saved,
    grad_weight: &mut Tensor,
) -> Tensor {
    if oss_kernels::supports(x) {
        return oss_kernels::rms_norm_backward(grad, beside, x, weight, &saved.inverse_rms, grad_weight);
    }
    let normalized = wide(x) * &saved.inverse_rms; // [N, D]
    let grad = wide(grad);
    let _ =
        grad_weight.g_add_(&(&grad * &normalized).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>));
    let grad = grad * weight;
    let projection = (&grad * &normalized).mean_dim([-1i64].as_slice(), true, None::<Kind>); // [N, 1]
    let grad = ((grad - normalized * projection) * &saved.inverse_rms).to_kind(x.kind());
    match beside {
        Some(beside) => grad + beside,
        None => grad,
    }
}
