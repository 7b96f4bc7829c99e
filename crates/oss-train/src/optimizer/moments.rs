//! What an optimizer keeps of each element of a flat buffer, in the precision that the experiment names.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::blockwise::{BLOCK, Codes, Coding};
use super::rules::StoredSlice;
use super::stochastic::{Noise, round_to_bf16};
use crate::checkpoint::OPTIMIZER_PREFIX;
use oss_config::StateDtype;
use oss_torch::{Slices, copy_async};

/// One moment that an optimizer keeps.
#[derive(Clone, Copy, Debug)]
pub struct MomentSpec {
    /// Its name, as in PyTorch's optimizer state.
    pub name: &'static str,
    /// How it is coded in 8 bits.
    pub coding: Coding,
}

/// What rounds each moment of an element.
const NOISES: [Noise; 2] = [Noise::FirstMoment, Noise::SecondMoment];

/// The numbers of one moment.
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

/// The moments of `n` elements, in the order of the rule that keeps them.
#[derive(Debug)]
pub struct Moments(Vec<Moment>);

/// A tensor of the optimizer's state as checkpoints keep it.
#[derive(Debug)]
pub struct StateTensor<'a> {
    /// What it is of a parameter, before the slash in its name.
    what: String,
    /// The tensor of the whole buffer.
    pub tensor: &'a Tensor,
    /// Elements of the buffer that one of its numbers belongs to.
    pub per: i64,
}

impl StateTensor<'_> {
    /// Its name for a parameter.
    pub fn name(&self, parameter: &str) -> String {
        format!("{OPTIMIZER_PREFIX}{}/{parameter}", self.what)
    }
}

/// Bytes of one moment of `elements` elements.
pub fn moment_bytes(precision: StateDtype, elements: u64) -> u64 {
    match precision {
        StateDtype::F32 => 4 * elements,
        StateDtype::Bf16 => 2 * elements,
        // A code for each element and a scale, f32, for each block.
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
                // Of a second moment, the root is coded.
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
    /// Zeros for `len` elements; in 8 bits these are whole blocks.
    pub fn zeros(specs: &[MomentSpec], precision: StateDtype, len: i64, device: Device) -> Self {
        let moment = |(spec, noise): (&MomentSpec, Noise)| Moment {
            name: spec.name,
            noise,
            numbers: Numbers::zeros(spec.coding, precision, len, device),
        };
        Self(specs.iter().zip(NOISES).map(moment).collect())
    }

    /// The same with each tensor replaced, such as by a copy elsewhere.
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        Self(self.0.iter().map(|moment| moment.with(moment.numbers.map(&change))).collect())
    }

    /// Views of elements `offset..offset + len`; in 8 bits these are whole blocks.
    pub fn narrow(&self, offset: i64, len: i64) -> Self {
        Self(self.0.iter().map(|moment| moment.with(moment.numbers.narrow(offset, len))).collect())
    }

    /// Whether they are kept in f32.
    pub fn are_wide(&self) -> bool {
        let is_wide = |moment: &Moment| matches!(&moment.numbers, Numbers::Floats(floats) if floats.kind() == Kind::Float);
        self.0.iter().all(is_wide)
    }

    /// The first `N` in f32 `[n]`: themselves where they are kept so, else copies.
    pub fn wide<const N: usize>(&self) -> [Tensor; N] {
        std::array::from_fn(|index| self.wide_one(index))
    }

    /// The one at `index` in f32 `[n]`, as in [`Self::wide`].
    pub fn wide_one(&self, index: usize) -> Tensor {
        self.0[index].numbers.wide()
    }

    /// Keeps what became of [`Self::wide`], rounded by `draws`, i32 `[n]`, where that takes rounding.
    pub fn store<const N: usize>(&mut self, wide: &[Tensor; N], draws: &Tensor) {
        for (moment, wide) in self.0.iter_mut().zip(wide) {
            moment.numbers.store(wide, draws, moment.noise);
        }
    }

    /// All `N` as slices, on the CPU.
    pub fn slices<'a, const N: usize>(&'a mut self, memory: &'a Slices) -> [StoredSlice<'a>; N] {
        let mut slices = self.0.iter_mut().map(|moment| moment.numbers.slice(memory));
        std::array::from_fn(|_| slices.next().unwrap_or_else(|| unreachable!("the rule keeps {N} moments")))
    }

    /// The tensors that checkpoints keep.
    pub fn state(&self) -> Vec<StateTensor<'_>> {
        self.0.iter().flat_map(Moment::state).collect()
    }

    /// Takes over the numbers of `other`, of the same size and precision, from a GPU without waiting for it.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        for (mine, theirs) in self.state().into_iter().zip(other.state()) {
            copy_async(mine.tensor, theirs.tensor)?;
        }
        Ok(())
    }
}
