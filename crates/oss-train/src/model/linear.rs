//! Matrix products, and linear layers whose matrix has the compute dtype (or int8 if no gradient is needed) and whose
//! bias is f32.
//!
//! N tokens.

use tch::{Kind, Tensor};

use super::int8::{int8_product_into, is_int8};
use super::wide_kind;
use oss_torch::{Accumulate, Gemm, Group, gemm, gemm_each, gemm_grouped, has_gemm};

/// Weights of a linear layer, or their gradients.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
}

/// Applies the layer to `x [N, in]`, returning `[N, out]`.
pub fn forward(x: &Tensor, layer: &Linear) -> Tensor {
    let Linear { weight, bias } = layer;
    let mut y = Tensor::empty([x.size()[0], weight.size()[0]], (x.kind(), x.device()));
    product_plus_into(&mut y, x, &weight.transpose(0, 1), bias);
    y
}

/// [`forward`] for several layers with the same input, batched where the CPU kernels support it.
pub fn forward_each<const L: usize>(x: &Tensor, layers: [&Linear; L]) -> [Tensor; L] {
    let is_int8 = layers.iter().any(|layer| is_int8(&layer.weight));
    if is_int8 || !has_gemm(x) || oss_kernels::takes_few_rows(x, x.size()[0]) {
        return layers.map(|layer| forward(x, layer));
    }
    let columns = layers.map(|layer| layer.weight.transpose(0, 1));
    let mut ys =
        layers.map(|layer| Tensor::empty([x.size()[0], layer.weight.size()[0]], (x.kind(), x.device())));
    let products = ys.iter_mut().zip(&columns).zip(layers);
    let products =
        products.map(|((into, b), layer)| Gemm { into, a: x, b, onto: Accumulate::Row(&layer.bias) });
    gemm_each(&products.collect::<Vec<_>>());
    ys
}

/// Returns the gradient of the input and accumulates those of weight and bias into `grads` (f32).
pub fn backward(grad: &Tensor, x: &Tensor, layer: &Linear, grads: &mut Linear) -> Tensor {
    accumulate_product(&mut grads.weight, &grad.transpose(0, 1), x);
    let _ = grads.bias.g_add_(&sum_rows(grad, grads.bias.kind()));
    product(grad, &layer.weight)
}

/// `a @ b`.
pub fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let mut y = Tensor::empty([a.size()[0], b.size()[1]], (a.kind(), a.device()));
    product_into(&mut y, a, b);
    y
}

/// `a @ b` in f32 (f64 for f64), without rounding to the factors' dtype where the kernel allows it.
pub fn wide_product(a: &Tensor, b: &Tensor) -> Tensor {
    let mut y = Tensor::empty([a.size()[0], b.size()[1]], (wide_kind(a.kind()), a.device()));
    product_into(&mut y, a, b);
    y
}

/// `into = a @ b`, where `into` may be wider than the factors.
pub fn product_into(into: &mut Tensor, a: &Tensor, b: &Tensor) {
    if is_int8(b) {
        int8_product_into(into, a, b, None);
    } else if oss_kernels::few_rows(a, b) {
        oss_kernels::few_rows_product(into, a, b, None);
    } else if has_gemm(a) {
        gemm(into, a, b, Accumulate::Zero);
    } else if into.kind() == a.kind() {
        let _ = a.mm_out(into, b);
    } else {
        into.copy_(&a.matmul(b));
    }
}

/// `into = a @ b + bias`, where `bias` is one row and is cast to the dtype of the factors.
pub fn product_plus_into(into: &mut Tensor, a: &Tensor, b: &Tensor, bias: &Tensor) {
    if is_int8(b) {
        int8_product_into(into, a, b, Some(bias));
    } else if oss_kernels::few_rows(a, b) {
        oss_kernels::few_rows_product(into, a, b, Some(bias));
    } else if has_gemm(a) {
        gemm(into, a, b, Accumulate::Row(bias));
    } else {
        let _ = bias.to_kind(a.kind()).addmm_out(into, a, b);
    }
}

/// Grouped product: multiplies each group of rows of `x [R, in]` by its matrix in `weight [E, in, out]`, adds its row
/// of `bias [E, out]`, and writes the result to its rows of `into [R, out]`.
pub fn grouped_product_into(
    into: &mut Tensor,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    groups: &[Group],
) {
    let are_few = groups.iter().any(|group| oss_kernels::takes_few_rows(x, group.len));
    if has_gemm(x) && !are_few && !is_int8(weight) {
        return gemm_grouped(into, x, weight, bias, groups);
    }
    for group in groups {
        let [mut into, rows] = [&*into, x].map(|x| x.narrow(0, group.start, group.len));
        let weight = weight.get(group.index);
        match bias {
            Some(bias) => product_plus_into(&mut into, &rows, &weight, &bias.get(group.index)),
            None => product_into(&mut into, &rows, &weight),
        }
    }
}

/// `into += a @ b`, where `into` may be wider than the factors.
pub fn accumulate_product(into: &mut Tensor, a: &Tensor, b: &Tensor) {
    if has_gemm(a) {
        gemm(into, a, b, Accumulate::Itself);
    } else if into.kind() == a.kind() {
        let _ = into.addmm_(a, b);
    } else {
        let _ = into.g_add_(&a.matmul(b));
    }
}

/// Sums over rows, in `kind`.
pub fn sum_rows(x: &Tensor, kind: Kind) -> Tensor {
    x.sum_dim_intlist([0i64].as_slice(), false, kind)
}
