//! A linear layer whose matrix is in the compute kind and whose bias is f32.
//!
//! N tokens.

use tch::{Kind, Tensor};

/// `x [N, in]` times `weight [out, in]`, plus `bias [out]`.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    bias.to_kind(x.kind()).addmm(x, &weight.transpose(0, 1))
}

/// The gradient of the input; those of weight and bias are added to `grad_weight` and `grad_bias` (f32).
pub fn backward(
    grad: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    grad_weight: &mut Tensor,
    grad_bias: &mut Tensor,
) -> Tensor {
    accumulate_product(grad_weight, &grad.transpose(0, 1), x);
    let _ = grad_bias.g_add_(&sum_rows(grad, grad_bias.kind()));
    grad.matmul(weight)
}

/// `into += a @ b`, where `into` may be wider than the factors.
pub fn accumulate_product(into: &mut Tensor, a: &Tensor, b: &Tensor) {
    if into.kind() == a.kind() {
        let _ = into.addmm_(a, b);
    } else {
        let _ = into.g_add_(&a.matmul(b));
    }
}

/// The sum over rows, in `kind`.
pub fn sum_rows(x: &Tensor, kind: Kind) -> Tensor {
    x.sum_dim_intlist([0i64].as_slice(), false, kind)
}
