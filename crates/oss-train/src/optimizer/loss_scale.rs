//! Dynamic loss scaling for f16.

use serde::{Deserialize, Serialize};

use oss_config::Precision;

/// The factor applied to f16 gradients to prevent underflow (arXiv:1710.03740); 1 in other precisions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The current scale.
    pub scale: f64,
    /// Steps since the last change.
    good_steps: u64,
    dynamic: bool,
}

impl LossScale {
    const START: f64 = 65536.0;
    const MIN: f64 = 1.0;
    const GROW_AFTER_STEPS: u64 = 2000;

    /// The initial scale of a run.
    pub fn new(precision: Precision) -> Self {
        let dynamic = precision == Precision::F16;
        Self { scale: if dynamic { Self::START } else { 1.0 }, good_steps: 0, dynamic }
    }

    /// Updates the scale after a step: an overflow halves it, and a long run of steps without one doubles it. Returns
    /// whether the scale explains an overflow, so that the step should only be skipped.
    pub fn update(&mut self, overflow: bool) -> bool {
        if !self.dynamic {
            return false;
        }
        if overflow {
            let can_halve = self.scale > Self::MIN;
            self.scale = (self.scale / 2.0).max(Self::MIN);
            self.good_steps = 0;
            return can_halve;
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
    fn the_loss_scale_halves_on_overflow_and_grows_after_stable_steps() {
        let mut scale = LossScale::new(Precision::F16);
        assert!(scale.update(true));
        assert_eq!(scale.scale, 32768.0);
        for _ in 0..LossScale::GROW_AFTER_STEPS {
            assert!(!scale.update(false));
        }
        assert_eq!(scale.scale, 65536.0);
    }

    #[test]
    fn the_minimum_loss_scale_does_not_explain_an_overflow() {
        let mut scale = LossScale::new(Precision::F16);
        while scale.update(true) {}
        assert_eq!(scale.scale, LossScale::MIN);
        assert!(!LossScale::new(Precision::Bf16).update(true));
    }
}
