//! The learning rate of each step.

use oss_config::{Schedule, ScheduleKind};

/// The learning rate of `step` (0-based) as a fraction of the peak, in a run of `steps` steps.
///
/// Warm-up is linear and reaches the peak after `warmup_steps`. cosine (arXiv:1608.03983, without restarts) and linear
/// decay end at `decay_steps`; wsd (arXiv:2404.06395) decays linearly over the last `decay_steps`.
pub fn lr_multiplier(schedule: &Schedule, steps: u64, step: u64) -> f64 {
    let warmup = schedule.warmup_steps;
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let least = schedule.min_lr_ratio;
    let along = |start: u64, end: u64| {
        if end <= start { 1.0 } else { ((step.max(start) - start) as f64 / (end - start) as f64).min(1.0) }
    };
    match schedule.kind {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Cosine => {
            let progress = along(warmup, decay_end(schedule, steps));
            least + (1.0 - least) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
        }
        ScheduleKind::Linear => 1.0 - (1.0 - least) * along(warmup, decay_end(schedule, steps)),
        ScheduleKind::Wsd => 1.0 - (1.0 - least) * along(decay_start(schedule, steps), steps),
    }
}

/// The step at which the decay of cosine and linear ends.
fn decay_end(schedule: &Schedule, steps: u64) -> u64 {
    schedule.decay_steps.unwrap_or(steps)
}

/// The step at which wsd starts to decay: the last one whose checkpoint a longer run can resume from.
pub fn decay_start(schedule: &Schedule, steps: u64) -> u64 {
    steps.saturating_sub(schedule.decay_steps.unwrap_or(steps / 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, warmup_steps: 10, decay_steps: None, min_lr_ratio: 0.1 }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a}, expected {b}");
    }

    #[test]
    fn warm_up_is_linear_and_never_zero() {
        close(lr_multiplier(&schedule(ScheduleKind::Cosine), 100, 0), 0.1);
        close(lr_multiplier(&schedule(ScheduleKind::Cosine), 100, 9), 1.0);
        close(lr_multiplier(&schedule(ScheduleKind::Cosine), 100, 10), 1.0);
    }

    #[test]
    fn schedules_have_the_expected_midpoints_and_ends() {
        close(lr_multiplier(&schedule(ScheduleKind::Cosine), 110, 60), 0.55);
        close(lr_multiplier(&schedule(ScheduleKind::Cosine), 110, 110), 0.1);
        close(lr_multiplier(&schedule(ScheduleKind::Linear), 110, 60), 0.55);
        close(lr_multiplier(&schedule(ScheduleKind::Linear), 110, 500), 0.1);
        close(lr_multiplier(&schedule(ScheduleKind::Constant), 110, 109), 1.0);
        close(lr_multiplier(&schedule(ScheduleKind::Wsd), 100, 79), 1.0);
        close(lr_multiplier(&schedule(ScheduleKind::Wsd), 100, 80), 1.0);
        close(lr_multiplier(&schedule(ScheduleKind::Wsd), 100, 90), 0.55);
    }

    #[test]
    fn a_run_longer_than_its_decay_stays_at_the_minimum() {
        let schedule = Schedule { decay_steps: Some(50), ..schedule(ScheduleKind::Cosine) };
        close(lr_multiplier(&schedule, 100, 50), 0.1);
        close(lr_multiplier(&schedule, 100, 99), 0.1);
    }

    #[test]
    fn extending_a_wsd_run_does_not_change_steps_before_the_decay() {
        let schedule = schedule(ScheduleKind::Wsd);
        for step in 0..decay_start(&schedule, 100) {
            close(lr_multiplier(&schedule, 100, step), lr_multiplier(&schedule, 300, step));
        }
    }
}
