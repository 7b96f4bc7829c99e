//! `[optimizer]`, `[schedule]`, `[train]` and `[sharding]`: steps, batches and devices that must fit each other.

use super::Findings;
use crate::{
    Backend, DEVICES, Experiment, Optimizer, Precision, Schedule, ScheduleKind, StoredWeights, Strategy,
    Update, conform::not_one_of,
};

pub(super) fn optimizer(optimizer: &Optimizer, found: &mut Findings) {
    if let Some(index) = optimizer.betas.iter().position(|beta| *beta >= 1.0) {
        let message = "a moment that decays by 1 never moves";
        let key = format!("optimizer.betas[{index}]");
        found.error(&[&key], message, "set both of optimizer.betas below 1, such as [0.9, 0.95]");
    }
    let expected = optimizer.kind.expects();
    match (expected.momentum, optimizer.momentum) {
        (None, Some(_)) => {
            let keys = ["optimizer.momentum", "optimizer.kind"];
            let message = "AdamW's moments decay by `optimizer.betas`: `optimizer.momentum` does nothing";
            found.warning(&keys, message, "take it out, or set optimizer.kind = \"muon\"");
        }
        (Some(_), Some(1.0..)) => {
            let message = "a momentum that decays by 1 never moves";
            found.error(&["optimizer.momentum"], message, "set optimizer.momentum below 1, such as 0.95");
        }
        _ => {}
    }
    if optimizer.lr > expected.highest_lr {
        let message = format!("`optimizer.lr` = {} is far above what AdamW bears", optimizer.lr);
        found.warning(&["optimizer.lr"], message, "most models train between 1e-5 and 1e-3");
    }
}

/// Ways of updating and storing weights that exclude each other.
pub(super) fn updates(experiment: &Experiment, found: &mut Findings) {
    let Experiment { optimizer, train, .. } = experiment;
    if train.weights == StoredWeights::Bf16 && train.precision != Precision::Bf16 {
        let keys = ["train.weights", "train.precision"];
        let message = "weights that are kept in bf16 alone are multiplied in bf16";
        found.error(&keys, message, "set train.precision = \"bf16\", or train.weights = \"f32\"");
    }
    if optimizer.update != Update::InBackward {
        return;
    }
    if train.precision == Precision::F16 {
        let keys = ["optimizer.update", "train.precision"];
        let message = "an overflow of f16 is seen only after the backward pass has changed the weights";
        found.error(&keys, message, "set train.precision = \"bf16\", or optimizer.update = \"step\"");
    }
    if optimizer.max_grad_norm.is_some_and(|norm| norm > 0.0) {
        let keys = ["optimizer.max_grad_norm", "optimizer.update"];
        let message =
            "the global gradient norm is known only after the backward pass has changed the weights";
        let fix = "take optimizer.max_grad_norm out (each tensor's update is clipped by its own RMS instead), or set \
                   optimizer.update = \"step\"";
        found.error(&keys, message, fix);
    }
}

pub(super) fn schedule(schedule: &Schedule, steps: u64, found: &mut Findings) {
    let warmup = schedule.warmup_steps;
    if warmup > steps {
        let keys = ["schedule.warmup_steps", "train.steps"];
        let message = format!("a warm-up of {warmup} steps is longer than the run of {steps}");
        found.error(&keys, message, format!("set schedule.warmup_steps to at most {steps}"));
        return;
    }
    let Some(decay) = schedule.decay_steps else { return };
    match schedule.kind {
        ScheduleKind::Cosine | ScheduleKind::Linear if decay <= warmup => {
            let keys = ["schedule.decay_steps", "schedule.warmup_steps"];
            let message =
                format!("the decay ends at step {decay}, before the warm-up of {warmup} steps is over");
            found.error(&keys, message, "set schedule.decay_steps to the step at which the decay ends");
        }
        ScheduleKind::Cosine | ScheduleKind::Linear if decay != steps => {
            let keys = ["schedule.decay_steps", "train.steps"];
            let message =
                format!("the learning rate ends its decay at step {decay}, the run at step {steps}");
            found.warning(
                &keys,
                message,
                "leave schedule.decay_steps out for a decay that ends with the run",
            );
        }
        ScheduleKind::Wsd if decay + warmup > steps => {
            let keys = ["schedule.decay_steps", "schedule.warmup_steps", "train.steps"];
            let message =
                format!("a warm-up of {warmup} and a decay of {decay} steps do not fit a run of {steps}");
            let fix = format!("set schedule.decay_steps to at most {}", steps - warmup);
            found.error(&keys, message, fix);
        }
        ScheduleKind::Constant => {
            let message = "a constant learning rate has no decay: `schedule.decay_steps` does nothing";
            found.warning(&["schedule.decay_steps"], message, "take it out, or choose another schedule.kind");
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
            "a global batch of {} sequences cannot be cut into micro-batches of {} on {} rank{}",
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
        found.error(&["train.device"], format!("there is no device \"{device}\""), fix);
    }
    if sharding.strategy == Strategy::None && sharding.ranks != 1 {
        let keys = ["sharding.ranks", "sharding.strategy"];
        let message = format!("{} ranks need a strategy to share the work", sharding.ranks);
        found.error(&keys, message, "set sharding.strategy to \"fsdp\" or \"ddp\", or sharding.ranks = 1");
    }
    if let Some(replica) = sharding.ranks_per_replica {
        let keys = ["sharding.ranks_per_replica", "sharding.strategy", "sharding.ranks"];
        if sharding.strategy != Strategy::Hsdp {
            let message = "only hsdp has replicas: `sharding.ranks_per_replica` does nothing";
            found.warning(&keys, message, "take it out, or set sharding.strategy = \"hsdp\"");
        } else if sharding.ranks % replica != 0 {
            let message = format!("{} ranks cannot be cut into replicas of {replica}", sharding.ranks);
            found.error(&keys, message, "set sharding.ranks to a multiple of sharding.ranks_per_replica");
        }
    }
    if is_one_gpu && sharding.ranks > 1 && sharding.backend != Backend::Gloo {
        let keys = ["train.device", "sharding.ranks"];
        let message = format!("every rank of a machine would compute on \"{device}\", which NCCL refuses");
        found.warning(
            &keys,
            message,
            "set train.device = \"cuda\" for a GPU each, or sharding.backend = \"gloo\"",
        );
    }
    if sharding.offload_optimizer && device == "cpu" {
        let keys = ["sharding.offload_optimizer", "train.device"];
        let message = "on the CPU the optimizer is in host memory already";
        found.warning(&keys, message, "take sharding.offload_optimizer out");
    }
    if sharding.backend == Backend::Nccl && device == "cpu" {
        let keys = ["sharding.backend", "train.device"];
        found.error(
            &keys,
            "NCCL moves tensors between GPUs only",
            "set sharding.backend = \"gloo\" or \"auto\"",
        );
    }
}
