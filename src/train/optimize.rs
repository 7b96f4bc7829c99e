//! Clipping by the global norm, f16's loss scale, and the optimizer step of every unit.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::unit::Unit;
use crate::experiment::{Optimizer, Precision};

/// The longest piece whose norm is taken at once: BLAS counts in 32 bits.
const PIECE: i64 = 1 << 30;

/// What f16 gradients are multiplied by, so that they do not vanish (arXiv:1710.03740); 1 in other precisions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor.
    pub scale: f64,
    /// Steps since it last changed.
    good_steps: u64,
    dynamic: bool,
}

impl LossScale {
    const START: f64 = 65536.0;
    const LEAST: f64 = 1.0;
    const GROW_AFTER_STEPS: u64 = 2000;

    /// The first scale of a run.
    pub fn new(precision: Precision) -> Self {
        let dynamic = precision == Precision::F16;
        Self { scale: if dynamic { Self::START } else { 1.0 }, good_steps: 0, dynamic }
    }

    /// After a step: overflow halves the scale, a long time without doubles it. Whether an overflow is the scale's fault
    /// and the step is only to be left out.
    pub fn update(&mut self, overflow: bool) -> bool {
        if !self.dynamic {
            return false;
        }
        if overflow {
            let halved = self.scale > Self::LEAST;
            self.scale = (self.scale / 2.0).max(Self::LEAST);
            self.good_steps = 0;
            return halved;
        }
        self.good_steps += 1;
        if self.good_steps == Self::GROW_AFTER_STEPS {
            self.scale *= 2.0;
            self.good_steps = 0;
        }
        false
    }
}

/// The sum of the squares of all gradients in these slices.
pub fn sum_of_squares(units: &[Unit]) -> f64 {
    let square = |piece: Tensor| piece.dot(&piece).to_kind(Kind::Double);
    let squares: Vec<Tensor> = units
        .iter()
        .flat_map(|unit| {
            let len = unit.layout.len_of_shard();
            (0..len)
                .step_by(PIECE as usize)
                .map(move |at| square(unit.gradient.narrow(0, at, PIECE.min(len - at))))
        })
        .collect();
    Tensor::stack(&squares, 0).sum(Kind::Double).double_value(&[])
}

/// One optimizer step of every unit, with gradients clipped to `optimizer.max_grad_norm`.
///
/// `applied` counts the optimizer steps before this one.
pub fn step(
    units: &mut [Unit],
    optimizer: &Optimizer,
    lr: f64,
    applied: u64,
    norm: f64,
    loss_scale: f64,
) -> Result<()> {
    let clip = optimizer.max_grad_norm;
    let shrink = if clip > 0.0 && norm > clip { norm / clip } else { 1.0 };
    let device = units[0].master.device();
    let grad_scale = Tensor::from_slice(&[(shrink * loss_scale) as f32]).to_device(device).squeeze();
    let count = Tensor::from_slice(&[(applied + 1) as f32]).to_device(device).squeeze();
    units.iter_mut().try_for_each(|unit| unit.step(optimizer, lr, &count, Some(&grad_scale)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_scale_falls_on_overflow_and_grows_after_long_quiet() {
        let mut scale = LossScale::new(Precision::F16);
        assert!(scale.update(true));
        assert_eq!(scale.scale, 32768.0);
        for _ in 0..LossScale::GROW_AFTER_STEPS {
            assert!(!scale.update(false));
        }
        assert_eq!(scale.scale, 65536.0);
    }

    #[test]
    fn at_the_least_scale_an_overflow_is_the_models_fault() {
        let mut scale = LossScale::new(Precision::F16);
        while scale.update(true) {}
        assert_eq!(scale.scale, LossScale::LEAST);
        assert!(!LossScale::new(Precision::Bf16).update(true));
    }
}
