//! Stochastic rounding: up or down, with probabilities that make the expected value exact.
//!
//! Each element of each parameter has one 32-bit draw per step, a pure function of (seed, step, name, element index),
//! independent of the ranks, the device and the order of execution. The upper half rounds the weight to bf16; the two
//! lower bytes round the first and the second moment.
//!
//! The function applies two rounds of a multiply and xor-shift hash to the index. Half of a 64-bit key enters before
//! the first round and half between the rounds, so that streams of different keys are not shifted copies of each other.
//! The constants come from Wellons' search for the least biased hash of this form (github.com/skeeto/hash-prospector).
//! A cipher such as ChaCha, which generates the initial weights, or Philox would cost a GPU five times the passes over
//! memory; the hash is a dozen operations on 32-bit integers. Rounding needs no protection against an adversary.

use tch::{Device, Kind, Tensor};

use oss_torch::OwnedTensor;

/// The draws of one parameter in one step.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    key: [u32; 2],
}

impl Draws {
    /// The draws of parameter `name` in optimizer step `step`.
    pub fn new(seed: u64, step: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"oss-run stochastic rounding 1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&step.to_le_bytes());
        hasher.update(name.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        Self { key: [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])] }
    }

    /// The draw of element `index`. Elements 2^32 apart share a draw; no tensor of these models is half that long.
    #[inline(always)]
    fn of(self, index: u32) -> u32 {
        let mut x = index ^ self.key[0];
        x = (x ^ (x >> 16)).wrapping_mul(MULTIPLIERS[0]) ^ self.key[1];
        x = (x ^ (x >> 15)).wrapping_mul(MULTIPLIERS[1]);
        x ^ (x >> 15)
    }

    /// The draws of elements `first..first + len`, as the bits of an i32 `[len]` on `device`.
    pub fn tensor(self, first: i64, len: i64, device: Device) -> Tensor {
        match device {
            Device::Cpu => self.filled(first, len),
            _ => self.computed(first, len, device),
        }
    }

    /// Generates the draws in a loop over a slice.
    fn filled(self, first: i64, len: i64) -> Tensor {
        let mut draws = OwnedTensor::empty(&[len], Kind::Int);
        self.fill(first as u32, bytemuck::cast_slice_mut(draws.bytes_mut()));
        draws.into_tensor()
    }

    /// Writes the draws of the elements starting at `first` to `out`.
    #[inline(always)]
    pub fn fill(self, first: u32, out: &mut [u32]) {
        for (i, draw) in (0u32..).zip(out) {
            *draw = self.of(first.wrapping_add(i));
        }
    }

    /// Generates the draws with libtorch operations, whose 32-bit integers wrap around and shift arithmetically.
    fn computed(self, first: i64, len: i64, device: Device) -> Tensor {
        let signed = |number: u32| i64::from(number as i32);
        let xor_shifted = |mut x: Tensor, by: u32| {
            let shifted =
                x.bitwise_right_shift_tensor_scalar(i64::from(by)).bitwise_and(signed(u32::MAX >> by));
            x.bitwise_xor_tensor_(&shifted)
        };
        let mut x = Tensor::arange(len, (Kind::Int, device));
        let _ = x.g_add_scalar_(signed(first as u32)).bitwise_xor_(signed(self.key[0]));
        let mut x = xor_shifted(x, 16).g_mul_scalar_(signed(MULTIPLIERS[0]));
        let x = xor_shifted(x.bitwise_xor_(signed(self.key[1])), 15).g_mul_scalar_(signed(MULTIPLIERS[1]));
        xor_shifted(x, 15)
    }
}

const MULTIPLIERS: [u32; 2] = [0x21f0_aaad, 0x735a_2d97];

/// Which bits of a draw to use.
#[derive(Clone, Copy, Debug)]
pub enum Noise {
    /// The upper 16 bits.
    Weight,
    /// The lowest 8 bits.
    FirstMoment,
    /// The second-lowest 8 bits.
    SecondMoment,
}

impl Noise {
    /// Uniform integers in 0..65536, i32 `[n]`, for rounding to bf16.
    fn for_bf16(self, draws: &Tensor) -> Tensor {
        match self {
            Self::Weight => {
                let upper = draws.view_dtype(Kind::Int16).view([-1, 2]).select(1, 1);
                upper.to_kind(Kind::Int).g_add_scalar_(1 << 15)
            }
            moment => moment.byte(draws).to_kind(Kind::Int).g_mul_scalar_(1 << 8).g_add_scalar_(1 << 7),
        }
    }

    /// The same integer for a single draw.
    #[inline(always)]
    pub fn of_draw_for_bf16(self, draw: u32) -> u32 {
        match self {
            Self::Weight => (draw >> 16) ^ (1 << 15),
            moment => (moment.byte_of(draw) << 8) + (1 << 7),
        }
    }

    /// The byte of one draw that rounds this moment.
    #[inline(always)]
    pub fn byte_of(self, draw: u32) -> u32 {
        match self {
            Self::FirstMoment => draw & 0xff,
            Self::SecondMoment => draw >> 8 & 0xff,
            Self::Weight => unreachable!("a weight is rounded by 16 bits"),
        }
    }

    /// The bytes of the draws that round this moment, u8 `[n]`.
    pub fn byte(self, draws: &Tensor) -> Tensor {
        let place = match self {
            Self::FirstMoment => 0,
            Self::SecondMoment => 1,
            Self::Weight => unreachable!("a weight is rounded by 16 bits"),
        };
        draws.view_dtype(Kind::Uint8).view([-1, 4]).select(1, place)
    }
}

/// Rounds f32 `source` to bf16 `target`, both `[n]`: to one of the two neighboring values, such that the expected value
/// is `source`.
///
/// A bf16 is the upper half of an f32. Adding a uniform integer to the lower half carries into the upper half with a
/// probability equal to the fraction that the lower half represents.
pub fn round_to_bf16(source: &Tensor, draws: &Tensor, noise: Noise, target: &mut Tensor) {
    let sum = noise.for_bf16(draws).g_add_(&source.view_dtype(Kind::Int));
    target.copy_(&sum.view_dtype(Kind::BFloat16).view([-1, 2]).select(1, 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn mean(tensor: &Tensor) -> f64 {
        tensor.to_kind(Kind::Double).mean(None).double_value(&[])
    }

    #[test]
    fn tensors_and_slices_draw_the_same_bits() {
        let draws = Draws::new(7, 3, "w");
        for (first, len) in [(0, 1), (5, 1000), ((1 << 31) - 17, 64), ((1 << 32) - 300, 1024)] {
            assert!(draws.filled(first, len).equal(&draws.computed(first, len, Device::Cpu)), "from {first}");
        }
        assert!(draws.filled(0, 100).narrow(0, 40, 60).equal(&draws.filled(40, 60)));
    }

    #[test]
    fn draws_match_golden_values() {
        // Golden values: a different generator would break bit-for-bit resumption of every run.
        let draws = Draws::new(0, 1, "lm_head.weight");
        assert_eq!([0, 1, 2].map(|i| draws.of(i)), [966_626_265, 1_904_559_000, 2_774_652_916]);
    }

    #[test]
    fn bits_are_unbiased_and_streams_are_uncorrelated() {
        let n = 1 << 18;
        let of = |seed, step, name: &str| Draws::new(seed, step, name).filled(0, n);
        let (one, bound) = (of(1, 1, "w"), 4.5 * 0.5 / (n as f64).sqrt());
        let lag = one.narrow(0, 1, n - 1);
        let pairs = [
            (one.shallow_clone(), of(2, 1, "w")),
            (one.shallow_clone(), of(1, 2, "w")),
            (one.shallow_clone(), of(1, 1, "v")),
            (one.narrow(0, 0, n - 1), lag),
        ];
        for bit in 0..32 {
            let set = |draws: &Tensor| draws.bitwise_right_shift_tensor_scalar(bit).bitwise_and(1);
            assert!((mean(&set(&one)) - 0.5).abs() < bound, "bit {bit}");
            for (i, (a, b)) in pairs.iter().enumerate() {
                let differ = mean(&set(a).bitwise_xor_tensor(&set(b)));
                assert!((differ - 0.5).abs() < bound, "bit {bit} of pair {i}: {differ}");
            }
        }
    }

    /// Rounds `n` copies of a value.
    fn rounded(value: f32, n: i64, noise: Noise) -> Tensor {
        let mut target = Tensor::zeros([n], (Kind::BFloat16, Device::Cpu));
        let draws = Draws::new(3, 9, "w").tensor(0, n, Device::Cpu);
        round_to_bf16(&Tensor::full([n], f64::from(value), CPU), &draws, noise, &mut target);
        target.to_kind(Kind::Float)
    }

    #[test]
    fn stochastic_rounding_is_unbiased() {
        let n = 1 << 18;
        for value in [1.0 + 1.0 / 512.0, -1.003, 3.3e-5, 1.0 + 1.0 / 4096.0, 1e-20] {
            // At most one ulp of bf16.
            let step = f64::from(value).abs() * 2f64.powi(-7);
            for (noise, resolution) in [(Noise::Weight, 2f64.powi(-16)), (Noise::SecondMoment, 2f64.powi(-9))]
            {
                let seen = rounded(value, n, noise);
                let error = (mean(&seen) - f64::from(value)).abs();
                assert!(error < step * (4.5 * 0.5 / (n as f64).sqrt() + resolution), "{value}: {error:e}");
                let [least, most] = [seen.min(), seen.max()].map(|end| end.double_value(&[]));
                assert!(most - least <= step && least <= f64::from(value) && f64::from(value) <= most);
            }
        }
    }

    #[test]
    fn values_representable_in_bf16_are_unchanged() {
        for value in [0.0, 1.0, -0.5, 3.0e38_f32, f32::INFINITY] {
            let value = half::bf16::from_f32(value).to_f32();
            assert!(
                rounded(value, 4096, Noise::Weight).eq(f64::from(value)).all().int64_value(&[]) == 1,
                "{value}"
            );
        }
    }
}
