//! Per-element optimizer state of a flat buffer, in the configured dtype.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::blockwise::{BLOCK, Codes, Coding};
use super::rules::StoredSlice;
use super::stochastic::{Noise, round_to_bf16};
use crate::checkpoint::OPTIMIZER_PREFIX;
use oss_config::StateDtype;
use oss_torch::{Slices, copy_async};

/// A moment that an optimizer maintains.
#[derive(Clone, Copy, Debug)]
pub struct MomentSpec {
    /// Name of the moment, as in PyTorch's optimizer state.
    pub name: &'static str,
    /// How it is encoded in 8 bits.
    pub coding: Coding,
}

/// The source of stochastic rounding for each moment of an element.
const NOISES: [Noise; 2] = [Noise::FirstMoment, Noise::SecondMoment];

/// The values of one moment.
#[derive(Debug)]
enum Numbers {
    /// f32 or bf16 `[n]`.
    Floats(Tensor),
    Codes(Codes),
}

/// One moment of `n` elements.
#[derive(Debug)]
struct Moment {
    name: &'static str,
    noise: Noise,
    numbers: Numbers,
}

/// The moments of `n` elements, in the order that their rule declares.
#[derive(Debug)]
pub struct Moments(Vec<Moment>);

/// A tensor of optimizer state, as stored in checkpoints.
#[derive(Debug)]
pub struct StateTensor<'a> {
    /// Which state of a parameter it holds: the name's prefix before the slash.
    what: String,
    /// The tensor for the whole buffer.
    pub tensor: &'a Tensor,
    /// Buffer elements per element of the tensor.
    pub per: i64,
}

impl StateTensor<'_> {
    /// The tensor's name in a checkpoint for a parameter.
    pub fn name(&self, parameter: &str) -> String {
        format!("{OPTIMIZER_PREFIX}{}/{parameter}", self.what)
    }
}

/// Bytes of one moment of `elements` elements.
pub fn moment_bytes(precision: StateDtype, elements: u64) -> u64 {
    match precision {
        StateDtype::F32 => 4 * elements,
        StateDtype::Bf16 => 2 * elements,
        // One code per element, and one f32 scale per block.
        StateDtype::EightBit => elements + 4 * elements.div_ceil(BLOCK.unsigned_abs()),
    }
}

impl Numbers {
    fn zeros(coding: Coding, precision: StateDtype, len: i64, device: Device) -> Self {
        let floats = |kind| Self::Floats(Tensor::zeros([len], (kind, device)));
        match precision {
            StateDtype::F32 => floats(Kind::Float),
            StateDtype::Bf16 => floats(Kind::BFloat16),
            StateDtype::EightBit => Self::Codes(Codes::zeros(coding, len, device)),
        }
    }

    fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        match self {
            Self::Floats(floats) => Self::Floats(change(floats)),
            Self::Codes(codes) => Self::Codes(codes.map(change)),
        }
    }

    fn narrow(&self, offset: i64, len: i64) -> Self {
        match self {
            Self::Floats(floats) => Self::Floats(floats.narrow(0, offset, len)),
            Self::Codes(codes) => Self::Codes(codes.narrow(offset, len)),
        }
    }

    fn wide(&self) -> Tensor {
        match self {
            Self::Floats(floats) => floats.to_kind(Kind::Float),
            Self::Codes(codes) => codes.decode(),
        }
    }

    fn store(&mut self, wide: &Tensor, draws: &Tensor, noise: Noise) {
        match self {
            Self::Floats(floats) if floats.kind() == Kind::Float => {}
            Self::Floats(floats) => round_to_bf16(wide, draws, noise, floats),
            Self::Codes(codes) => codes.encode(wide, &noise.byte(draws)),
        }
    }

    fn slice<'a>(&'a mut self, memory: &'a Slices) -> StoredSlice<'a> {
        match self {
            Self::Floats(floats) => StoredSlice::floats(memory, floats),
            Self::Codes(Codes { coding, codes, scales }) => {
                StoredSlice::codes(memory, *coding, codes, scales)
            }
        }
    }
}

impl Moment {
    fn with(&self, numbers: Numbers) -> Self {
        Self { name: self.name, noise: self.noise, numbers }
    }

    fn state(&self) -> Vec<StateTensor<'_>> {
        let name = self.name;
        match &self.numbers {
            Numbers::Floats(tensor) => vec![StateTensor { what: name.to_owned(), tensor, per: 1 }],
            Numbers::Codes(Codes { coding, codes, scales }) => {
                // For a second moment, the square root is encoded.
                let of = if *coding == Coding::Second { "_root" } else { "" };
                vec![
                    StateTensor { what: format!("{name}{of}_codes"), tensor: codes, per: 1 },
                    StateTensor { what: format!("{name}{of}_scales"), tensor: scales, per: BLOCK },
                ]
            }
        }
    }
}

impl Moments {
    /// Zeros for `len` elements; in 8 bits, `len` must be a multiple of the block size.
    pub fn zeros(specs: &[MomentSpec], precision: StateDtype, len: i64, device: Device) -> Self {
        let moment = |(spec, noise): (&MomentSpec, Noise)| Moment {
            name: spec.name,
            noise,
            numbers: Numbers::zeros(spec.coding, precision, len, device),
        };
        Self(specs.iter().zip(NOISES).map(moment).collect())
    }

    /// Applies `change` to each tensor, such as a copy to another device.
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        Self(self.0.iter().map(|moment| moment.with(moment.numbers.map(&change))).collect())
    }

    /// Views of elements `offset..offset + len`; in 8 bits, on block boundaries.
    pub fn narrow(&self, offset: i64, len: i64) -> Self {
        Self(self.0.iter().map(|moment| moment.with(moment.numbers.narrow(offset, len))).collect())
    }

    /// Whether they are stored in f32.
    pub fn are_wide(&self) -> bool {
        let is_wide = |moment: &Moment| matches!(&moment.numbers, Numbers::Floats(floats) if floats.kind() == Kind::Float);
        self.0.iter().all(is_wide)
    }

    /// The first `N` moments in f32 `[n]`: the tensors themselves if stored in f32, otherwise copies.
    pub fn wide<const N: usize>(&self) -> [Tensor; N] {
        std::array::from_fn(|index| self.wide_at(index))
    }

    /// The moment at `index` in f32 `[n]`, as in [`Self::wide`].
    pub fn wide_at(&self, index: usize) -> Tensor {
        self.0[index].numbers.wide()
    }

    /// Stores the updated values of [`Self::wide`], stochastically rounded by `draws`, i32 `[n]`, if they are stored in
    /// less than f32.
    pub fn store<const N: usize>(&mut self, wide: &[Tensor; N], draws: &Tensor) {
        for (moment, wide) in self.0.iter_mut().zip(wide) {
            moment.numbers.store(wide, draws, moment.noise);
        }
    }

    /// All `N` moments as slices, on the CPU.
    pub fn slices<'a, const N: usize>(&'a mut self, memory: &'a Slices) -> [StoredSlice<'a>; N] {
        let mut slices = self.0.iter_mut().map(|moment| moment.numbers.slice(memory));
        std::array::from_fn(|_| slices.next().unwrap_or_else(|| unreachable!("the rule has {N} moments")))
    }

    /// The state tensors to store in a checkpoint.
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        self.0.iter().flat_map(Moment::state).collect()
    }

    /// Copies the values of `other`, of the same size and dtype, without synchronizing with a GPU.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        for (mine, theirs) in self.state().into_iter().zip(other.state()) {
            copy_async(mine.tensor, theirs.tensor)?;
        }
        Ok(())
    }
}
