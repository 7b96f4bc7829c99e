//! AdamW's two moments of a flat buffer, or Muon's one, in the precision that the experiment names.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::blockwise::{BLOCK, Codes, Coding};
use super::host::Kept;
use super::stochastic::{Noise, round_to_bf16};
use crate::checkpoint::OPTIMIZER_PREFIX;
use crate::experiment::{OptimizerKind, StatePrecision};
use crate::torch::{Slices, copy_async};

/// One moment of `n` elements.
#[derive(Debug)]
enum Moment {
    /// f32 or bf16 `[n]`.
    Floats(Tensor),
    Codes(Codes),
}

/// The moments of `n` elements.
#[derive(Debug)]
pub struct Moments {
    exp_avg: Moment,
    /// AdamW's.
    exp_avg_sq: Option<Moment>,
}

/// A tensor of the optimizer's state as checkpoints keep it.
#[derive(Debug)]
pub struct Stored<'a> {
    /// What it is of a parameter, before the slash in its name.
    what: &'static str,
    /// The tensor of the whole buffer.
    pub tensor: &'a Tensor,
    /// Elements of the buffer that one of its numbers belongs to.
    pub per: i64,
}

impl Stored<'_> {
    /// Its name for a parameter.
    pub fn name(&self, parameter: &str) -> String {
        format!("{OPTIMIZER_PREFIX}{}/{parameter}", self.what)
    }
}

impl Moment {
    fn zeros(coding: Coding, precision: StatePrecision, len: i64, device: Device) -> Self {
        let floats = |kind| Self::Floats(Tensor::zeros([len], (kind, device)));
        match precision {
            StatePrecision::F32 => floats(Kind::Float),
            StatePrecision::Bf16 => floats(Kind::BFloat16),
            StatePrecision::EightBit => Self::Codes(Codes::zeros(coding, len, device)),
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

    /// In f32: the moment itself where it is kept so, else a copy.
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

    fn kept<'a>(&'a mut self, slices: &'a Slices) -> Kept<'a> {
        match self {
            Self::Floats(floats) => Kept::floats(slices, floats),
            Self::Codes(Codes { coding, codes, scales }) => Kept::codes(slices, *coding, codes, scales),
        }
    }

    fn stored(&self, [floats, codes, scales]: [&'static str; 3]) -> Vec<Stored<'_>> {
        match self {
            Self::Floats(tensor) => vec![Stored { what: floats, tensor, per: 1 }],
            Self::Codes(of) => vec![
                Stored { what: codes, tensor: &of.codes, per: 1 },
                Stored { what: scales, tensor: &of.scales, per: BLOCK },
            ],
        }
    }
}

impl Moments {
    /// Zeros for `len` elements that `optimizer` steps; in 8 bits these are whole blocks.
    pub fn zeros(optimizer: OptimizerKind, precision: StatePrecision, len: i64, device: Device) -> Self {
        let zeros = |coding| Moment::zeros(coding, precision, len, device);
        let has_second = optimizer == OptimizerKind::Adamw;
        Self { exp_avg: zeros(Coding::First), exp_avg_sq: has_second.then(|| zeros(Coding::Second)) }
    }

    /// Whether there is a second.
    pub fn has_second(&self) -> bool {
        self.exp_avg_sq.is_some()
    }

    fn second(&self) -> &Moment {
        self.exp_avg_sq.as_ref().unwrap_or_else(|| unreachable!("AdamW keeps both moments"))
    }

    fn second_mut(&mut self) -> &mut Moment {
        self.exp_avg_sq.as_mut().unwrap_or_else(|| unreachable!("AdamW keeps both moments"))
    }

    /// The same with each tensor replaced, such as by a copy elsewhere.
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        let exp_avg_sq = self.exp_avg_sq.as_ref().map(|moment| moment.map(&change));
        Self { exp_avg: self.exp_avg.map(&change), exp_avg_sq }
    }

    /// Views of elements `offset..offset + len`; in 8 bits these are whole blocks.
    pub fn narrow(&self, offset: i64, len: i64) -> Self {
        let exp_avg_sq = self.exp_avg_sq.as_ref().map(|moment| moment.narrow(offset, len));
        Self { exp_avg: self.exp_avg.narrow(offset, len), exp_avg_sq }
    }

    /// Whether they are kept in f32.
    pub fn are_wide(&self) -> bool {
        matches!(&self.exp_avg, Moment::Floats(floats) if floats.kind() == Kind::Float)
    }

    /// Both in f32 `[n]`: themselves where they are kept so, else copies.
    pub fn wide(&self) -> [Tensor; 2] {
        [self.wide_first(), self.wide_second()]
    }

    /// The first alone.
    pub fn wide_first(&self) -> Tensor {
        self.exp_avg.wide()
    }

    /// The second alone.
    pub fn wide_second(&self) -> Tensor {
        self.second().wide()
    }

    /// Keeps what became of [`Self::wide`], rounded by `draws`, i32 `[n]`, where that takes rounding.
    pub fn store(&mut self, [exp_avg, exp_avg_sq]: &[Tensor; 2], draws: &Tensor) {
        self.store_first(exp_avg, draws);
        self.second_mut().store(exp_avg_sq, draws, Noise::SecondMoment);
    }

    /// The same for [`Self::wide_first`].
    pub fn store_first(&mut self, exp_avg: &Tensor, draws: &Tensor) {
        self.exp_avg.store(exp_avg, draws, Noise::FirstMoment);
    }

    /// Both as slices, on the CPU.
    pub fn kept<'a>(&'a mut self, slices: &'a Slices) -> [Kept<'a>; 2] {
        let Self { exp_avg, exp_avg_sq: Some(exp_avg_sq) } = self else {
            unreachable!("AdamW keeps both moments")
        };
        [exp_avg.kept(slices), exp_avg_sq.kept(slices)]
    }

    /// The tensors that checkpoints keep.
    pub fn stored(&self) -> Vec<Stored<'_>> {
        let mut stored = self.exp_avg.stored(["exp_avg", "exp_avg_codes", "exp_avg_scales"]);
        // Of the second moment's root, hence the names.
        let names = ["exp_avg_sq", "exp_avg_sq_root_codes", "exp_avg_sq_root_scales"];
        stored.extend(self.exp_avg_sq.iter().flat_map(|moment| moment.stored(names)));
        stored
    }

    /// Takes over the numbers of `other`, of the same size and precision, from a GPU without waiting for it.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        for (mine, theirs) in self.stored().into_iter().zip(other.stored()) {
            copy_async(mine.tensor, theirs.tensor)?;
        }
        Ok(())
    }
}
