//! Selects the device that an experiment requests, and configures libtorch.

use anyhow::{Result, bail};
use tch::{Cuda, Device};

use oss_config::Train;
use oss_config::error::UserError;

/// The device of `train.device` for local rank `local_rank`. `auto` and `cuda` assign each rank a separate GPU; `cpu`
/// and `cuda:N` apply to every rank.
///
/// # Errors
/// Fails if CUDA is requested but this build does not support it, or this machine has too few GPUs.
pub fn device(train: &Train, local_rank: usize) -> Result<Device> {
    let index = match train.device.as_str() {
        "auto" if Cuda::is_available() => local_rank,
        "auto" | "cpu" => return Ok(Device::Cpu),
        "cuda" => local_rank,
        name => match name.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => index,
            None => {
                bail!(
                    UserError::failed(format!("invalid train.device {name:?}"))
                        .hint("use \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"")
                )
            }
        },
    };
    if !cfg!(feature = "cuda") {
        bail!(
            UserError::failed(format!(
                "train.device = {:?}, but this oss-run was built without CUDA",
                train.device
            ))
            .hint("rebuild with `CUDA=1 make build`, or set train.device = \"cpu\"")
        );
    }
    let found = Cuda::device_count();
    if index as i64 >= found {
        bail!(
            UserError::failed(format!(
                "train.device = {:?} needs device {index}, but libtorch sees {found} CUDA devices",
                train.device
            ))
            .hint(
                "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, lower sharding.ranks, or set \
                 train.device = \"cpu\""
            )
        );
    }
    Ok(Device::Cuda(index))
}

/// Sets the number of threads and, if `deterministic`, selects bitwise-reproducible kernels. If neither the experiment
/// nor `OMP_NUM_THREADS` sets the number of threads, the `ranks_here` ranks on this machine divide evenly the cores that
/// affinity and cgroup allow, since oversubscribed cores would make the ranks wait for each other.
pub fn configure_torch(train: &Train, deterministic: bool, ranks_here: usize) -> Result<()> {
    match train.threads {
        Some(threads) => tch::set_num_threads(threads as i32),
        None if std::env::var_os("OMP_NUM_THREADS").is_none() => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            tch::set_num_threads((cores / ranks_here).max(1) as i32);
        }
        None => {}
    }
    oss_torch::adapt_spinning();
    oss_torch::set_deterministic(deterministic)
}
