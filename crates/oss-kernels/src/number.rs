//! Element types that kernels read and write; all arithmetic is f32.

use half::bf16;

use oss_torch::Element;

/// An element type.
pub trait Scalar: Element + Send + Sync {
    /// Converts to f32.
    fn wide(self) -> f32;

    /// Rounds to the nearest element, ties to even.
    fn narrow(value: f32) -> Self;
}

impl Scalar for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Scalar for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// `half`'s own rounding contains a branch that prevents loops from being vectorized.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let bits = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
        Self::from_bits((bits >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_like_half() {
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(u32::from(high) << 16 | low);
                let (seen, expected) = (<bf16 as Scalar>::narrow(value), bf16::from_f32(value));
                assert!(
                    seen.to_bits() == expected.to_bits() || (seen.is_nan() && expected.is_nan()),
                    "{value}"
                );
            }
        }
    }
}
