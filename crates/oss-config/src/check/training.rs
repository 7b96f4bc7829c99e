//! `[optimizer]`, `[schedule]`, `[train]` and `[sharding]`: consistency of steps, batches and devices.

use super::Findings;
use crate::{
    Backend, DEVICES, Experiment, Optimizer, ParamDtype, Precision, Schedule, ScheduleKind, Strategy, Update,
    validate::not_one_of,
};

pub(super) fn optimizer(optimizer: &Optimizer, found: &mut Findings) {
    if let Some(index) = optimizer.betas.iter().position(|beta| *beta >= 1.0) {
        let message = "a moment with a decay of 1 never changes";
        let key = format!("optimizer.betas[{index}]");
        found.error(&[&key], message, "set both of optimizer.betas below 1, such as [0.9, 0.95]");
    }
    let expected = optimizer.kind.expects();
    match (expected.momentum, optimizer.momentum) {
        (None, Some(_)) => {
            let keys = ["optimizer.momentum", "optimizer.kind"];
            let message = "AdamW uses `optimizer.betas`: `optimizer.momentum` has no effect";
            found.warning(&keys, message, "omit it, or set optimizer.kind = \"muon\"");
        }
        (Some(_), Some(1.0..)) => {
            let message = "a momentum of 1 never changes";
            found.error(&["optimizer.momentum"], message, "set optimizer.momentum below 1, such as 0.95");
        }
        _ => {}
    }
    if optimizer.lr > expected.highest_lr {
        let message = format!("`optimizer.lr` = {} is unusually high", optimizer.lr);
        found.warning(&["optimizer.lr"], message, "most models train with 1e-5 to 1e-3");
    }
}

/// Combinations of update mode, dtypes and clipping that exclude each other.
pub(super) fn updates(experiment: &Experiment, found: &mut Findings) {
    let Experiment { optimizer, train, .. } = experiment;
    if train.param_dtype == ParamDtype::Bf16 && train.precision != Precision::Bf16 {
        let keys = ["train.param_dtype", "train.precision"];
        let message = "weights stored in bf16 need bf16 matrix products";
        found.error(&keys, message, "set train.precision = \"bf16\", or train.param_dtype = \"f32\"");
    }
    if optimizer.update != Update::InBackward {
        return;
    }
    if train.precision == Precision::F16 {
        let keys = ["optimizer.update", "train.precision"];
        let message = "an f16 overflow is detected only after the backward pass has updated the weights";
        found.error(&keys, message, "set train.precision = \"bf16\", or optimizer.update = \"step\"");
    }
    if optimizer.max_grad_norm.is_some_and(|norm| norm > 0.0) {
        let keys = ["optimizer.max_grad_norm", "optimizer.update"];
        let message =
            "the global gradient norm is known only after the backward pass has updated the weights";
        let fix = "omit optimizer.max_grad_norm (each tensor's update is clipped by its own RMS instead), or set \
                   optimizer.update = \"step\"";
        found.error(&keys, message, fix);
    }
}

pub(super) fn schedule(schedule: &Schedule, steps: u64, found: &mut Findings) {
    let warmup = schedule.warmup_steps;
    if warmup > steps {
        let keys = ["schedule.warmup_steps", "train.steps"];
        let message = format!("a warmup of {warmup} steps is longer than the run ({steps} steps)");
        found.error(&keys, message, format!("set schedule.warmup_steps to at most {steps}"));
        return;
    }
    let Some(decay) = schedule.decay_steps else { return };
    match schedule.kind {
        ScheduleKind::Cosine | ScheduleKind::Linear if decay <= warmup => {
            let keys = ["schedule.decay_steps", "schedule.warmup_steps"];
            let message =
                format!("the decay ends at step {decay}, before the end of the warmup at step {warmup}");
            found.error(&keys, message, "set schedule.decay_steps to the step at which the decay ends");
        }
        ScheduleKind::Cosine | ScheduleKind::Linear if decay != steps => {
            let keys = ["schedule.decay_steps", "train.steps"];
            let message =
                format!("the learning rate decay ends at step {decay}, but the run ends at step {steps}");
            found.warning(&keys, message, "omit schedule.decay_steps to decay until the end of the run");
        }
        ScheduleKind::Wsd if decay + warmup > steps => {
            let keys = ["schedule.decay_steps", "schedule.warmup_steps", "train.steps"];
            let message = format!(
                "a warmup of {warmup} and a decay of {decay} steps do not fit in a run of {steps} steps"
            );
            let fix = format!("set schedule.decay_steps to at most {}", steps - warmup);
            found.error(&keys, message, fix);
        }
        ScheduleKind::Constant => {
            let message = "a constant learning rate has no decay: `schedule.decay_steps` has no effect";
            found.warning(&["schedule.decay_steps"], message, "omit it, or choose another schedule.kind");
        }
        _ => {}
    }
}

pub(super) fn batches(experiment: &Experiment, found: &mut Findings) {
    let Experiment { train, sharding, model, .. } = experiment;
    let ranks = i128::from(sharding.ranks);
    let at_once = i128::from(train.micro_batch_size) * ranks;
    if i128::from(train.global_batch_size) % at_once != 0 {
        let keys = ["train.micro_batch_size", "train.global_batch_size", "sharding.ranks"];
        let message = format!(
            "a global batch of {} sequences cannot be divided into micro-batches of {} on {} rank{}",
            train.global_batch_size,
            train.micro_batch_size,
            ranks,
            if ranks == 1 { "" } else { "s" }
        );
        let share = i128::from(train.global_batch_size) / ranks;
        let fix = if share * ranks == i128::from(train.global_batch_size) {
            format!("set train.micro_batch_size to a divisor of {share}")
        } else {
            format!("set train.global_batch_size to a multiple of {at_once}")
        };
        found.error(&keys, message, fix);
    }
    if train.sequence_length > model.max_position_embeddings {
        let keys = ["train.sequence_length", "model.max_position_embeddings"];
        let message = format!(
            "sequences of {} tokens are longer than the model's context of {}",
            train.sequence_length, model.max_position_embeddings
        );
        let fix = format!("set train.sequence_length to at most {}", model.max_position_embeddings);
        found.error(&keys, message, fix);
    }
}

pub(super) fn device(experiment: &Experiment, found: &mut Findings) {
    let Experiment { train, sharding, .. } = experiment;
    let device = train.device.as_str();
    let is_number = |n: &str| (1..=4).contains(&n.len()) && n.bytes().all(|digit| digit.is_ascii_digit());
    let is_one_gpu = device.strip_prefix("cuda:").is_some_and(is_number);
    if !is_one_gpu && !DEVICES.contains(&device) {
        let fix = format!("{} or cuda:N", not_one_of(device, DEVICES.into_iter()));
        found.error(&["train.device"], format!("unknown device \"{device}\""), fix);
    }
    if sharding.strategy == Strategy::None && sharding.ranks != 1 {
        let keys = ["sharding.ranks", "sharding.strategy"];
        let message = format!("{} ranks need a sharding strategy", sharding.ranks);
        found.error(&keys, message, "set sharding.strategy to \"fsdp\" or \"ddp\", or sharding.ranks = 1");
    }
    if let Some(replica) = sharding.shard_degree {
        let keys = ["sharding.shard_degree", "sharding.strategy", "sharding.ranks"];
        if sharding.strategy != Strategy::Hsdp {
            let message = "only hsdp has replicas: `sharding.shard_degree` has no effect";
            found.warning(&keys, message, "omit it, or set sharding.strategy = \"hsdp\"");
        } else if sharding.ranks % replica != 0 {
            let message = format!("{} ranks cannot be divided into replicas of {replica}", sharding.ranks);
            found.error(&keys, message, "set sharding.ranks to a multiple of sharding.shard_degree");
        }
    }
    if is_one_gpu && sharding.ranks > 1 && sharding.backend != Backend::Gloo {
        let keys = ["train.device", "sharding.ranks"];
        let message = format!("all ranks of a machine would use \"{device}\", which NCCL does not support");
        found.warning(
            &keys,
            message,
            "set train.device = \"cuda\" for one GPU per rank, or sharding.backend = \"gloo\"",
        );
    }
    if sharding.optimizer_cpu_offload && device == "cpu" {
        let keys = ["sharding.optimizer_cpu_offload", "train.device"];
        let message = "on the CPU, the optimizer state is already in host memory";
        found.warning(&keys, message, "omit sharding.optimizer_cpu_offload");
    }
    if sharding.backend == Backend::Nccl && device == "cpu" {
        let keys = ["sharding.backend", "train.device"];
        found.error(&keys, "NCCL works only with GPUs", "set sharding.backend = \"gloo\" or \"auto\"");
    }
}
