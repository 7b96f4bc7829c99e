//! The exponential function in a form that compilers can vectorize.

/// `e^x` to within 2 ulp for `-87 <= x <= 88`; arguments beyond are clamped to this range, and NaN stays NaN.
///
/// `x = k ln 2 + r` with an integer k (Cody and Waite's two-part ln 2), and a polynomial for `e^r`, `|r| <= ln 2 / 2`,
/// with the coefficients of Cephes (Moshier, expf.c).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MIN: f32 = -87.0;
    const MAX: f32 = 88.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding this constant rounds to an integer, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < MIN { MIN } else { x };
    let x = if x > MAX { MAX } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN2_HIGH - k * LN2_LOW;
    let mut series = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        series = series * r + coefficient;
    }
    let fraction = series * (r * r) + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    fraction * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_within_two_ulps() {
        let worst = (-870_000..880_000)
            .map(|i| i as f32 * 1e-4)
            .map(|x| {
                let exact = f64::from(x).exp();
                (f64::from(exp(x)) - exact).abs() / exact / f64::from(f32::EPSILON / 2.0)
            })
            .fold(0.0, f64::max);
        assert!(worst < 4.0, "{worst} half ulps");
    }

    #[test]
    fn extreme_arguments() {
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }
}
