//! Approximates the nearest orthogonal matrix using matrix products only (Newton-Schulz iteration).

use tch::{Device, Kind, Tensor};

/// Coefficients of s, s^3 and s^5 in one iteration's map of a singular value s (Keller Jordan,
/// kellerjordan.github.io/posts/muon): as steep as possible at 0 while values from 0 to 1 stay near 1.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// After this many iterations, values from 0.003 to 1 lie between 0.68 and 1.21.
const ITERATIONS: usize = 5;

/// Added to norms, so that zero matrices stay zero.
const EPS: f64 = 1e-30;

/// The dtype of the products on `device`: bf16, whose errors are far smaller than those of the iteration itself, unless
/// the processor has to emulate it.
pub fn product_kind(device: Device) -> Kind {
    if device == Device::Cpu && !multiplies_bf16() { Kind::Float } else { Kind::BFloat16 }
}

#[cfg(target_arch = "x86_64")]
fn multiplies_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn multiplies_bf16() -> bool {
    false
}

/// Maps each matrix `U S V^T` of a stack `[N, R, C]` to approximately `U V^T`: singular values of at least 0.003 of the
/// Frobenius norm become 0.68 to 1.21, smaller ones shrink proportionally, and zeros stay zero. Products and result
/// have the stack's dtype.
pub fn orthogonalize(stack: &Tensor) -> Tensor {
    let size = stack.size();
    let is_tall = size[1] > size[2];
    let wide = if is_tall { stack.transpose(1, 2) } else { stack.shallow_clone() };
    let squares = wide.to_kind(Kind::Float).square();
    let norm = squares.sum_dim_intlist([1i64, 2].as_slice(), true, Kind::Float).sqrt_() + EPS;
    let mut x = (wide / norm).to_kind(stack.kind()).contiguous();
    let [first, third, fifth] = QUINTIC;
    for _ in 0..ITERATIONS {
        let gram = x.bmm(&x.transpose(1, 2));
        let factor = gram.baddbmm(&gram, &gram, third, fifth);
        x = x.baddbmm(&factor, &x, first, 1.0);
    }
    if is_tall { x.transpose(1, 2) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::stochastic::Draws;

    /// Values in -1..1, f64.
    fn noise(shape: [i64; 3], name: &str) -> Tensor {
        let draws = Draws::new(3, 1, name).tensor(0, shape.iter().product(), Device::Cpu);
        (draws.to_kind(Kind::Double) / 2f64.powi(31)).view(shape)
    }

    /// `U` and `V` with orthonormal columns, and `s`, such that the matrix is `U diag(s) V^T`.
    fn with_values(rows: i64, columns: i64, values: &[f64]) -> (Tensor, Tensor, Tensor) {
        let rank = values.len() as i64;
        let orthonormal = |n: i64, name: &str| Tensor::linalg_qr(&noise([1, n, rank], name), "reduced").0;
        let (u, v) = (orthonormal(rows, "u"), orthonormal(columns, "v"));
        let matrix = (&u * Tensor::from_slice(values)).bmm(&v.transpose(1, 2));
        (u, v, matrix)
    }

    /// Applies the iteration to one singular value, in f64.
    fn iterated(mut s: f64) -> f64 {
        for _ in 0..5 {
            s = 3.4445 * s - 4.7750 * s.powi(3) + 2.0315 * s.powi(5);
        }
        s
    }

    #[test]
    fn singular_values_follow_the_scalar_iteration_and_vectors_are_preserved() {
        let values = [3.0, 2.0, 1.0, 0.5, 0.1, 0.02];
        let norm = values.iter().map(|s| s * s).sum::<f64>().sqrt();
        let expected: Vec<f64> = values.iter().map(|s| iterated(s / norm)).collect();
        assert!(expected.iter().all(|s| (0.68..1.21).contains(s)), "{expected:?}");
        for (rows, columns) in [(6, 6), (6, 40), (40, 6), (33, 20)] {
            let (u, v, matrix) = with_values(rows, columns, &values);
            let expected = Tensor::from_slice(&expected);
            let ideal = (&u * &expected).bmm(&v.transpose(1, 2));
            for (kind, tolerance) in [(Kind::Double, 1e-6), (Kind::Float, 1e-4), (Kind::BFloat16, 0.3)] {
                let seen = orthogonalize(&(&matrix * 1e-4).to_kind(kind));
                assert_eq!((seen.kind(), seen.size()), (kind, vec![1, rows, columns]));
                let seen = seen.to_kind(Kind::Double);
                let values = u.transpose(1, 2).bmm(&seen).bmm(&v);
                let error = (values - expected.diag(0)).norm().double_value(&[]);
                assert!(error < tolerance, "{rows} x {columns} in {kind:?}: {error:e}");
                // In bf16, rounding errors grow in directions outside the matrix's range.
                if kind != Kind::BFloat16 {
                    let error = (seen - &ideal).norm().double_value(&[]);
                    assert!(error < tolerance, "{rows} x {columns} in {kind:?}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn singular_values_end_in_the_documented_range() {
        for i in 3..=1000 {
            let value = iterated(f64::from(i) / 1000.0);
            assert!((0.68..1.21).contains(&value), "{i}: {value}");
        }
    }

    #[test]
    fn stacked_matrices_are_independent_and_zeros_stay_zero() {
        let stack = noise([3, 8, 12], "stack").to_kind(Kind::Float);
        let _ = stack.get(1).zero_();
        let together = orthogonalize(&stack);
        for i in 0..3 {
            let alone = orthogonalize(&stack.narrow(0, i, 1)).get(0);
            let error = (together.get(i) - &alone).abs().max().double_value(&[]);
            assert!(error < 1e-5, "{i}: {error:e}");
        }
        assert_eq!(together.get(1).count_nonzero(None).int64_value(&[]), 0);
    }
}
