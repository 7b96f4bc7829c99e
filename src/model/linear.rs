//! Matrix products, and a linear layer whose matrix is in the compute kind and whose bias is f32.
//!
//! N tokens.

use tch::{Kind, Tensor};

use super::wide_kind;
use crate::kernels;
use crate::torch::{Onto, gemm, has_gemm};

/// `x [N, in]` times `weight [out, in]`, plus `bias [out]`.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    product_plus(x, &weight.transpose(0, 1), bias)
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
    product(grad, weight)
}

/// `a @ b`.
pub fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let mut y = Tensor::empty([a.size()[0], b.size()[1]], (a.kind(), a.device()));
    product_into(&mut y, a, b);
    y
}

/// `a @ b` in f32 (f64 for f64), unrounded where the product can be.
pub fn wide_product(a: &Tensor, b: &Tensor) -> Tensor {
    let mut y = Tensor::empty([a.size()[0], b.size()[1]], (wide_kind(a.kind()), a.device()));
    product_into(&mut y, a, b);
    y
}

/// `into = a @ b`, where `into` may be wider than the factors.
pub fn product_into(into: &mut Tensor, a: &Tensor, b: &Tensor) {
    if kernels::few_rows(a, b) {
        kernels::few_rows_product(into, a, b, None);
    } else if has_gemm(a) {
        gemm(into, a, b, Onto::Zero);
    } else if into.kind() == a.kind() {
        let _ = a.mm_out(into, b);
    } else {
        into.copy_(&a.matmul(b));
    }
}

/// `a @ b` plus a row of `bias`, which is cast to their kind.
pub fn product_plus(a: &Tensor, b: &Tensor, bias: &Tensor) -> Tensor {
    let mut y = Tensor::empty([a.size()[0], b.size()[1]], (a.kind(), a.device()));
    product_plus_into(&mut y, a, b, bias);
    y
}

/// `into = a @ b` plus a row of `bias`, which is cast to their kind.
pub fn product_plus_into(into: &mut Tensor, a: &Tensor, b: &Tensor, bias: &Tensor) {
    if kernels::few_rows(a, b) {
        kernels::few_rows_product(into, a, b, Some(bias));
    } else if has_gemm(a) {
        gemm(into, a, b, Onto::Row(bias));
    } else {
        let _ = bias.to_kind(a.kind()).addmm_out(into, a, b);
    }
}

/// `into += a @ b`, where `into` may be wider than the factors.
pub fn accumulate_product(into: &mut Tensor, a: &Tensor, b: &Tensor) {
    if has_gemm(a) {
        gemm(into, a, b, Onto::Itself);
    } else if into.kind() == a.kind() {
        let _ = into.addmm_(a, b);
    } else {
        let _ = into.g_add_(&a.matmul(b));
    }
}

/// The sum over rows, in `kind`.
pub fn sum_rows(x: &Tensor, kind: Kind) -> Tensor {
    x.sum_dim_intlist([0i64].as_slice(), false, kind)
}
