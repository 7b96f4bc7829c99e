//! 8-bit moments, quantized in blocks of 256 elements with one f32 scale per block (arXiv:2110.02861).
//!
//! A code c represents (c / c_max)^2 times the block's absolute maximum, with the sign of c. The quadratic map is
//! fine-grained near zero, where most of a block lies, and encoding takes a square root rather than a search. The
//! second moment is encoded through its square root, which spans half as many decades. Its codes are 0..=255; those of
//! the first moment are -127..=127.
//!
//! Rounding is stochastic, so that it is unbiased. A moment is an average over many steps. With round-to-nearest, it
//! stops moving once a step changes it by less than half a code. With rounding up, it only ever grows toward the
//! largest gradient seen, and shortens every later update. There is one exception: a nonzero second moment never rounds
//! to code 0, since updates are divided by it.

use tch::{Device, Kind, Tensor};

/// Elements per block.
pub const BLOCK: i64 = 256;

/// Lower bound on a block's absolute maximum: far below any eps, and prevents division by zero.
pub const MIN_SCALE: f64 = 1e-30;

/// Which moment is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// The first moment: signed values.
    First,
    /// The second moment: squares of the encoded values.
    Second,
}

impl Coding {
    /// The square of the largest code.
    pub fn top_squared(self) -> f64 {
        match self {
            Self::First => 127.0 * 127.0,
            Self::Second => 255.0 * 255.0,
        }
    }
}

/// An 8-bit moment consisting of whole blocks.
#[derive(Debug)]
pub struct Codes {
    /// Which moment it is.
    pub coding: Coding,
    /// The codes, i8 or u8 `[n]`.
    pub codes: Tensor,
    /// The absolute maximum of each block, or its square root: f32 `[n / 256]`.
    pub scales: Tensor,
}

impl Codes {
    /// All zeros; `len` must be a multiple of the block size.
    pub fn zeros(coding: Coding, len: i64, device: Device) -> Self {
        let kind = if coding == Coding::First { Kind::Int8 } else { Kind::Uint8 };
        let codes = Tensor::zeros([len], (kind, device));
        Self { coding, codes, scales: Tensor::zeros([len / BLOCK], (Kind::Float, device)) }
    }

    /// Applies `change` to each tensor.
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { coding: self.coding, codes: change(&self.codes), scales: change(&self.scales) }
    }

    /// A view of elements `offset..offset + len`, on block boundaries.
    pub fn narrow(&self, offset: i64, len: i64) -> Self {
        Self {
            coding: self.coding,
            codes: self.codes.narrow(0, offset, len),
            scales: self.scales.narrow(0, offset / BLOCK, len / BLOCK),
        }
    }

    /// Dequantizes the moment to f32 `[n]`.
    pub fn decode(&self) -> Tensor {
        let codes = self.codes.to_kind(Kind::Float).view([-1, BLOCK]);
        let squares = match self.coding {
            Coding::First => &codes * codes.abs(),
            Coding::Second => codes.square(),
        };
        let mut coded = squares * (&self.scales / self.coding.top_squared()).unsqueeze(1);
        match self.coding {
            Coding::First => coded,
            Coding::Second => coded.square_(),
        }
        .view(-1)
    }

    /// Quantizes `moment`, f32 `[n]`, rounding stochastically by `noise`, u8 `[n]`.
    pub fn encode(&mut self, moment: &Tensor, noise: &Tensor) {
        let magnitude = match self.coding {
            Coding::First => moment.abs(),
            Coding::Second => moment.sqrt(),
        }
        .view([-1, BLOCK]);
        let scales = magnitude.amax([1i64].as_slice(), true);
        self.scales.copy_(&scales.squeeze_dim(1));
        // A square between those of two codes rounds up with the probability that keeps the mean.
        let mut square = magnitude / scales.clamp_min(MIN_SCALE);
        let square = square.g_mul_scalar_(self.coding.top_squared());
        let lower = square.sqrt().floor_();
        let chance = (&square - lower.square()) / (&lower * 2.0 + 1.0);
        let goes_up = (chance * 256.0 - 0.5).gt_tensor(&noise.view([-1, BLOCK]));
        let code = lower + goes_up;
        let code = match self.coding {
            Coding::First => code.copysign(&moment.view([-1, BLOCK])),
            Coding::Second => code.maximum(&square.gt(0.0).to_kind(Kind::Float)),
        };
        self.codes.copy_(&code.view(-1));
    }
}

#[cfg(test)]
mod tests {
    use super::super::stochastic::{Draws, Noise};
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn coded(coding: Coding, moment: &Tensor, step: u64) -> Codes {
        let len = moment.size()[0];
        let mut codes = Codes::zeros(coding, len, Device::Cpu);
        let noise = if coding == Coding::First { Noise::FirstMoment } else { Noise::SecondMoment };
        codes.encode(moment, &noise.byte(&Draws::new(1, step, "w").tensor(0, len, Device::Cpu)));
        codes
    }

    /// The value that a code represents, written directly from the definition, in f64.
    fn value(coding: Coding, code: f64, scale: f64) -> f64 {
        match coding {
            Coding::First => code.signum() * (code / 127.0).powi(2) * scale,
            Coding::Second => ((code / 255.0).powi(2) * scale).powi(2),
        }
    }

    fn moments() -> [(Coding, Tensor); 2] {
        tch::manual_seed(3);
        let wide = Tensor::randn([8 * BLOCK], CPU) * (Tensor::randn([8 * BLOCK], CPU) * 3.0).exp();
        [(Coding::First, wide.shallow_clone()), (Coding::Second, wide.square())]
    }

    #[test]
    fn values_are_rounded_to_neighboring_codes() {
        for (coding, moment) in moments() {
            let codes = coded(coding, &moment, 1);
            let decoded = Vec::<f32>::try_from(codes.decode()).unwrap();
            let list = Vec::<f64>::try_from(codes.codes.to_kind(Kind::Double)).unwrap();
            let scales = Vec::<f32>::try_from(&codes.scales).unwrap();
            for (i, exact) in Vec::<f32>::try_from(&moment).unwrap().into_iter().enumerate() {
                let (code, scale, exact) = (list[i], f64::from(scales[i / 256]), f64::from(exact));
                let stands_for = value(coding, code, scale);
                assert!((f64::from(decoded[i]) - stands_for).abs() <= 1e-6 * stands_for.abs(), "{i}");
                let [below, above] = [code - 1.0, code + 1.0].map(|code| value(coding, code, scale));
                assert!(exact.abs() <= above.abs().max(below.abs()) * 1.000_01, "{i}: {exact} as {code}");
                let least = if code.abs() < 1.0 { 0.0 } else { below.abs().min(above.abs()) };
                assert!(exact.abs() >= least * 0.999_99, "{i}: {exact} as {code}");
                assert!(code == 0.0 || exact == 0.0 || code.signum() == exact.signum(), "{i}");
            }
        }
    }

    #[test]
    fn encoding_is_unbiased_over_steps() {
        let steps = 400;
        for (coding, moment) in moments() {
            let root = |x: Tensor| if coding == Coding::Second { x.sqrt() } else { x };
            let sum = (0..steps).fold(Tensor::zeros_like(&moment), |sum, step| {
                sum + root(coded(coding, &moment, step).decode())
            });
            let exact = root(moment.shallow_clone());
            let scale = exact.view([-1, BLOCK]).abs().amax([1i64].as_slice(), true);
            // The widest gap between codes is 2 / c_max of the scale. For the second moment, allow for code 0 never
            // being used.
            let top = coding.top_squared().sqrt();
            let bound = 5.0 * 0.5 * (2.0 / top) / f64::from(steps as u32).sqrt() + 2.0 / top / 512.0;
            let error =
                ((sum / steps as f64 - exact).view([-1, BLOCK]) / scale).abs().max().double_value(&[]);
            assert!(error < bound, "{coding:?}: {error:e}, expected below {bound:e}");
        }
    }

    #[test]
    fn tiny_second_moments_stay_nonzero_and_zeros_stay_zero() {
        let tiny = Tensor::full([BLOCK], 1e-14, CPU);
        let _ = tiny.get(0).fill_(1.0);
        for step in 0..50 {
            assert_eq!(coded(Coding::Second, &tiny, step).codes.count_nonzero(None).int64_value(&[]), BLOCK);
        }
        for coding in [Coding::First, Coding::Second] {
            let zeros = coded(coding, &Tensor::zeros([BLOCK], CPU), 1);
            assert_eq!(zeros.decode().count_nonzero(None).int64_value(&[]), 0);
        }
    }

    /// An average that decays so slowly that no step moves it by half a code must still track its input.
    #[test]
    fn a_slow_average_tracks_its_input() {
        let mut v = Tensor::full([BLOCK], 0.01, CPU);
        let _ = v.get(0).fill_(1.0);
        for step in 0..1000 {
            // The first element's input stays at 1 to fix the scale; the other inputs drop from 0.01 to 0.0001.
            let input = Tensor::full([BLOCK], 1e-4, CPU);
            let _ = input.get(0).fill_(1.0);
            v = coded(Coding::Second, &(v * 0.995 + input * 0.005), step).decode();
        }
        let expected = 1e-4 + (0.01 - 1e-4) * 0.995f64.powi(1000);
        let seen = v.narrow(0, 1, BLOCK - 1).mean(Kind::Double).double_value(&[]);
        assert!((seen / expected - 1.0).abs() < 0.1, "{seen:e}, expected {expected:e}");
    }
}
