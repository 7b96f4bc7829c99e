//! f16's loss scale.

use serde::{Deserialize, Serialize};

use oss_config::Precision;

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
            let horizontal_sum = self.scale > Self::LEAST;
            self.scale = (self.scale / 2.0).max(Self::LEAST);
            self.good_steps = 0;
            return horizontal_sum;
        }
        self.good_steps += 1;
        if self.good_steps == Self::GROW_AFTER_STEPS {
            self.scale *= 2.0;
            self.good_steps = 0;
        }
        false
    }
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
