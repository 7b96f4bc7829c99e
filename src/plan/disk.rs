//! Disk space of a run, computed from shapes alone.

use serde::Serialize;

use super::mesh::Regions;
use super::state_size;
use oss_config::{Checkpoint, Experiment, ExportDtype, ScheduleKind};
use oss_train::model::{ParameterSpec, Role, parameters};

/// Disk space by content, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// One checkpoint: weights and optimizer state, as stored.
    pub checkpoint: u64,
    /// Maximum number of checkpoints at a time, including the one being written.
    pub num_checkpoints: u64,
    /// The exported model.
    pub export: u64,
}

impl Disk {
    /// The total.
    pub fn total(&self) -> u64 {
        self.checkpoint.saturating_mul(self.num_checkpoints).saturating_add(self.export)
    }
}

/// Disk space of a complete run, on any number of ranks; the model's `vocab_size` must be set.
pub fn disk(experiment: &Experiment) -> Disk {
    let numel = |parameter: &ParameterSpec| parameter.numel().unsigned_abs();
    let sizes = parameters(&experiment.model).into_iter().map(|parameter| match parameter.role() {
        Role::Vocabulary => Regions { matrices: numel(&parameter), ..Regions::default() },
        Role::Matrix => Regions { matrices: numel(&parameter), of_blocks: numel(&parameter), rest: 0 },
        Role::Router | Role::Vector => Regions { rest: numel(&parameter), ..Regions::default() },
    });
    let total: u64 = sizes.clone().map(|size| size.elements()).sum();
    let kept = |size: Regions| state_size::weights(experiment, size) + state_size::moments(experiment, size);
    let export_bytes = match experiment.export.dtype {
        ExportDtype::F32 => 4,
        ExportDtype::Bf16 | ExportDtype::F16 => 2,
    };
    Disk {
        checkpoint: sizes.map(kept).sum(),
        num_checkpoints: num_checkpoints(experiment),
        export: export_bytes * total,
    }
}

fn num_checkpoints(experiment: &Experiment) -> u64 {
    let Checkpoint { every_steps, keep_last, keep_every, keep_best, .. } = experiment.checkpoint;
    let steps = experiment.train.steps;
    let kept_for_good = keep_every.map_or(0, |every| steps / every.max(1));
    let before_decay = u64::from(experiment.schedule.kind == ScheduleKind::Wsd);
    // A checkpoint is complete before the one it replaces is removed.
    let at_once = keep_last + 1 + kept_for_good + u64::from(keep_best) + before_decay;
    at_once.min(steps.div_ceil(every_steps.max(1)) + before_decay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::{Model, ParamDtype, Preset, StateDtype};

    #[test]
    fn a_checkpoint_holds_the_training_state() {
        let model = Model { vocab_size: Some(201_088), ..Preset::B20.model() };
        let mut experiment = Experiment { model, ..Experiment::default() };
        assert_eq!(disk(&experiment).checkpoint, 12 * 20_914_757_184);
        experiment.train.param_dtype = ParamDtype::Bf16;
        experiment.optimizer.state_dtype = StateDtype::EightBit;
        assert_eq!(disk(&experiment).checkpoint / 100_000_000, 843, "84.3 GB");
    }

    #[test]
    fn the_retention_rules_bound_the_number_of_checkpoints() {
        let model = Model { vocab_size: Some(201_088), ..Preset::Tiny.model() };
        let mut experiment = Experiment { model, ..Experiment::default() };
        experiment.train.steps = 1000;
        experiment.checkpoint = Checkpoint { every_steps: 100, keep_last: 2, ..Checkpoint::default() };
        assert_eq!(disk(&experiment).num_checkpoints, 3);
        experiment.checkpoint.keep_every = Some(500);
        experiment.checkpoint.keep_best = true;
        assert_eq!(disk(&experiment).num_checkpoints, 6);
        experiment.checkpoint.every_steps = 1000;
        assert_eq!(disk(&experiment).num_checkpoints, 1, "no more than the run writes");
    }
}
