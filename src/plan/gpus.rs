//! Which GPUs a rank fits on, and which settings reduce its memory.

use serde::Serialize;

use super::memory::{Memory, memory};
use super::mesh::on_gpu;
use oss_config::{Experiment, ParamDtype, Precision, StateDtype, Strategy, Update};
use oss_runs::run_dir::Host;

/// GPUs and their nominal memory in GiB.
const GPUS: [(&str, u64); 6] = [
    ("24 GB (RTX 4090)", 24),
    ("40 GB (A100)", 40),
    ("48 GB (L40S)", 48),
    ("80 GB (A100, H100)", 80),
    ("141 GB (H200)", 141),
    ("180 GB (B200)", 180),
];

/// Usable percentage of a GPU's memory; the rest goes to the CUDA context, communication buffers and fragmentation.
pub const USABLE_PERCENT: u64 = 94;

/// A GPU or machine that might hold a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// The GPU, or this machine.
    pub name: String,
    /// Usable bytes.
    pub usable: u64,
    /// Missing bytes; 0 if the rank fits.
    pub missing: u64,
}

/// A setting that would save memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saving {
    /// Assignments, as for `--set`.
    pub set: Vec<String>,
    /// Device memory saved per rank, in bytes.
    pub bytes: u64,
}

/// Common GPUs for a rank on a GPU; on the CPU, this machine for all ranks together.
pub fn fits(experiment: &Experiment, needed: &Memory) -> Vec<Fit> {
    if on_gpu(&experiment.train) {
        let usable = |gib: u64| (gib << 30) / 100 * USABLE_PERCENT;
        GPUS.iter().map(|(name, gib)| fit(name, usable(*gib), needed.on_device())).collect()
    } else {
        let ranks = experiment.sharding.ranks.max(1);
        vec![fit("this machine", Host::this().memory_bytes, needed.total().saturating_mul(ranks))]
    }
}

fn fit(name: &str, usable: u64, needed: u64) -> Fit {
    Fit { name: name.to_owned(), usable, missing: needed.saturating_sub(usable) }
}

/// Settings that would save device memory per rank, largest saving first.
pub fn savings(experiment: &Experiment) -> Vec<Saving> {
    let now = memory(experiment).on_device();
    let mut savings: Vec<Saving> = changes(experiment)
        .into_iter()
        .map(|(set, changed)| Saving { set, bytes: now.saturating_sub(memory(&changed).on_device()) })
        .filter(|saving| saving.bytes > 0)
        .collect();
    savings.sort_by_key(|saving| std::cmp::Reverse(saving.bytes));
    savings
}

fn changes(experiment: &Experiment) -> Vec<(Vec<String>, Experiment)> {
    let change = |set: &[String], apply: fn(&mut Experiment)| {
        let mut changed = experiment.clone();
        apply(&mut changed);
        (set.to_vec(), changed)
    };
    let mut changes = vec![
        change(&["train.activation_checkpointing=true".to_owned()], |changed| {
            changed.train.activation_checkpointing = true
        }),
        change(&["sharding.optimizer_cpu_offload=true".to_owned()], |changed| {
            changed.sharding.optimizer_cpu_offload = true;
        }),
        change(&["train.micro_batch_size=1".to_owned()], |changed| changed.train.micro_batch_size = 1),
    ];
    // These change the results slightly.
    if experiment.optimizer.state_dtype != StateDtype::EightBit {
        changes.push(change(&["optimizer.state_dtype=8bit".to_owned()], |changed| {
            changed.optimizer.state_dtype = StateDtype::EightBit;
        }));
    }
    if experiment.train.precision == Precision::Bf16 {
        changes.push(change(&["train.param_dtype=bf16".to_owned()], |changed| {
            changed.train.param_dtype = ParamDtype::Bf16;
        }));
    }
    if experiment.train.precision != Precision::F16 && experiment.optimizer.max_grad_norm.is_none() {
        changes.push(change(&["optimizer.update=in_backward".to_owned()], |changed| {
            changed.optimizer.update = Update::InBackward;
        }));
    }
    let ranks = 2 * experiment.sharding.ranks.max(1);
    let at_once = i128::from(experiment.train.micro_batch_size) * i128::from(ranks);
    if i128::from(experiment.train.global_batch_size) % at_once == 0 {
        let mut set = vec![format!("sharding.ranks={ranks}")];
        if experiment.sharding.strategy == Strategy::None {
            set.insert(0, "sharding.strategy=fsdp".to_owned());
        }
        changes.push(change(&set, |changed| {
            changed.sharding.ranks = 2 * changed.sharding.ranks.max(1);
            if changed.sharding.strategy == Strategy::None {
                changed.sharding.strategy = Strategy::Fsdp;
            }
        }));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::{Model, Overrides, Preset, load};

    fn the_20b() -> Experiment {
        let model = Model { vocab_size: Some(201_088), ..Preset::B20.model() };
        let mut experiment = Experiment { model, ..Experiment::default() };
        (experiment.train.global_batch_size, experiment.train.precision) = (40, Precision::Bf16);
        experiment.train.device = "cuda".into();
        (experiment.sharding.strategy, experiment.sharding.ranks) = (Strategy::Fsdp, 5);
        experiment
    }

    #[test]
    fn a_gpu_that_is_too_small_reports_the_missing_bytes() {
        let experiment = the_20b();
        let needed = memory(&experiment);
        let fits = fits(&experiment, &needed);
        assert_eq!(fits.len(), GPUS.len());
        assert_eq!(fits[0].missing, needed.on_device() - fits[0].usable);
        assert_eq!(fits[5].missing, 0);
        assert_eq!(fits[5].usable, (180 << 30) / 100 * 94);
    }

    #[test]
    fn on_the_cpu_all_ranks_share_the_machine() {
        let mut experiment = the_20b();
        experiment.train.device = "cpu".into();
        let needed = memory(&experiment);
        let fits = fits(&experiment, &needed);
        assert_eq!(fits.len(), 1);
        assert_eq!(fits[0].missing, (5 * needed.total()).saturating_sub(fits[0].usable));
    }

    #[test]
    fn savings_match_the_memory_of_the_changed_experiment() {
        let experiment = the_20b();
        let found = savings(&experiment);
        assert!(found.is_sorted_by(|a, b| a.bytes >= b.bytes));
        let of = |key: &str| found.iter().find(|saving| saving.set[0] == key).map(|saving| saving.bytes);
        let needed = memory(&experiment);
        let mut changed = experiment.clone();
        changed.sharding.optimizer_cpu_offload = true;
        let moments = needed.optimizer - memory(&changed).moments_in_flight;
        assert_eq!(of("sharding.optimizer_cpu_offload=true"), Some(moments));
        assert!(of("sharding.ranks=10").is_some_and(|bytes| bytes > needed.state() / 2 - (1 << 20)));
        assert!(of("train.activation_checkpointing=true").is_some());
        assert_eq!(of("train.micro_batch_size=1"), None, "it is 1 already");
        assert!(
            savings(&changed).iter().all(|saving| saving.set[0] != "sharding.optimizer_cpu_offload=true")
        );
    }

    #[test]
    fn ranks_that_do_not_divide_the_batch_are_not_proposed() {
        let mut experiment = the_20b();
        experiment.train.global_batch_size = 5;
        assert!(savings(&experiment).iter().all(|saving| !saving.set[0].starts_with("sharding.ranks")));
        experiment.train.global_batch_size = 2;
        (experiment.sharding.strategy, experiment.sharding.ranks) = (Strategy::None, 1);
        let set = ["sharding.strategy=fsdp", "sharding.ranks=2"];
        assert_eq!(savings(&experiment)[0].set, set);
    }

    #[test]
    fn the_20b_model_trains_on_one_141_gb_gpu() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/20b_1gpu.toml");
        let mut experiment =
            load(&path, &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}")).experiment;
        experiment.model.vocab_size = Some(201_088);
        let needed = memory(&experiment);
        let gb = |bytes: u64| (bytes + 50_000_000) / 100_000_000;
        assert_eq!((gb(needed.parameters), gb(needed.optimizer), gb(needed.gradients)), (418, 425, 33));
        assert_eq!((needed.compute_copy, gb(needed.on_device())), (0, 931));
        assert_eq!(fits(&experiment, &needed)[4].missing, 0);
    }
}
