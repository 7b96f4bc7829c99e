//! int8 weights, for decoding on a CPU: each token then reads one byte per weight.
//!
//! Quantization is symmetric with one scale per output, like torchao's weight-only int8; activations are not quantized.
//! A matrix `[out, in]` is stored as i8 `[out, in + 4]`: the bytes of the scale follow the quantized values, so that a
//! product reads a single stream (`oss_kernels::int8_product`). Axes keep the order of the floating-point matrices:
//! experts' are viewed as `[E, in + 4, out]`.

use tch::{Kind, Tensor};

use super::Role;
use super::linear::{product_into, product_plus_into};

/// Bytes of a dequantized tile, used if there are many rows.
const TILE_BYTES: i64 = 4 << 20;

/// Quantizes a unit's tensor to int8 if it is a matrix (`[out, in]`, or experts' `[E, in, out]`) of a block or the
/// head.
pub fn in_int8(role: Role, tensor: Tensor) -> Tensor {
    if !role.is_matrix() {
        return tensor;
    }
    match tensor.dim() {
        3 => {
            let experts = (0..tensor.size()[0]).map(|expert| tensor.get(expert).transpose(0, 1).contiguous());
            let experts: Vec<Tensor> = experts.map(|matrix| oss_kernels::to_int8(&matrix)).collect();
            Tensor::stack(&experts, 0).transpose(1, 2)
        }
        _ => oss_kernels::to_int8(&tensor.contiguous()),
    }
}

/// `into [b, out] = x [b, in] @ columns + bias`, where `columns` is i8 `[in + 4, out]` and `bias` one row.
pub fn int8_product_into(into: &mut Tensor, x: &Tensor, columns: &Tensor, bias: Option<&Tensor>) {
    let matrix = columns.transpose(0, 1);
    let (out, width) = (matrix.size()[0], x.size()[1]);
    if x.size()[0] <= oss_kernels::FEW_FOR_INT8 {
        return oss_kernels::int8_product(into, x, &matrix, bias);
    }
    let most = (TILE_BYTES / (4 * width)).max(1);
    for start in (0..out).step_by(most as usize) {
        let len = most.min(out - start);
        let tile = oss_kernels::from_int8(&matrix.narrow(0, start, len)).to_kind(x.kind()).transpose(0, 1);
        let mut into = into.narrow(1, start, len);
        match bias {
            Some(bias) => product_plus_into(&mut into, x, &tile, &bias.narrow(0, start, len)),
            None => product_into(&mut into, x, &tile),
        }
    }
}

/// Whether a matrix is int8.
pub fn is_int8(matrix: &Tensor) -> bool {
    matrix.kind() == Kind::Int8
}

#[cfg(test)]
mod tests {
    use super::super::linear::{Linear, forward, forward_each, grouped_product_into, wide_product};
    use super::*;
    use oss_torch::Group;
    use tch::Device;

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Numbers that int8 represents exactly: multiples of 1/127 up to 1, which occurs in each row.
    fn exact(shape: &[i64]) -> Tensor {
        let count: i64 = shape.iter().product();
        let numbers = (Tensor::arange(count, F32) * 37.0).fmod(255.0) - 127.0;
        let _ = numbers.view(shape).select(-1, 0).fill_(127.0);
        numbers.view(shape) / 127.0
    }

    fn hold(seen: &Tensor, expected: &Tensor) {
        let error = f64::try_from((seen - expected).abs().max() / expected.abs().max()).unwrap();
        assert!(error < 1e-5, "{error:e}");
    }

    #[test]
    fn int8_layers_match_float_layers() {
        // The last shape has more outputs than fit in a tile.
        for (rows, width, out) in [(1, 40, 30), (17, 64, 50), (20, 2048, 700)] {
            let x = exact(&[rows, width]);
            let layers = [out, out + 1]
                .map(|out| Linear { weight: exact(&[out, width]), bias: exact(&[1, out]).view([out]) });
            let packed = layers.each_ref().map(|layer| Linear {
                weight: in_int8(Role::Matrix, layer.weight.shallow_clone()),
                bias: layer.bias.shallow_clone(),
            });
            for (layer, packed) in layers.iter().zip(&packed) {
                hold(&forward(&x, packed), &forward(&x, layer));
                let [columns, packed] = [layer, packed].map(|layer| layer.weight.transpose(0, 1));
                hold(&wide_product(&x, &packed), &wide_product(&x, &columns));
            }
            let [seen, expected] = [&packed, &layers].map(|layers| forward_each(&x, layers.each_ref()));
            seen.iter().zip(&expected).for_each(|(seen, expected)| hold(seen, expected));
        }
    }

    #[test]
    fn int8_experts_match_float_experts() {
        let by_output = exact(&[3, 50, 40]); // [E, out, in]
        let (weight, bias) = (by_output.transpose(1, 2).contiguous(), exact(&[3, 50]));
        let packed = in_int8(Role::Matrix, weight.shallow_clone());
        let x = exact(&[23, 40]);
        let groups = [(2, 0, 1), (0, 1, 22)].map(|(index, start, len)| Group { index, start, len });
        let [seen, expected] = [&packed, &weight].map(|weight| {
            let mut into = Tensor::zeros([23, 50], F32);
            grouped_product_into(&mut into, &x, weight, Some(&bias), &groups);
            into
        });
        hold(&seen, &expected);
    }

    #[test]
    fn only_matrices_are_quantized() {
        for role in [Role::Router, Role::Vector] {
            assert_eq!(in_int8(role, exact(&[4, 8])).kind(), Kind::Float);
        }
    }
}
