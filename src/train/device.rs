//! The device that an experiment names, and how libtorch computes on it.

use anyhow::{Result, bail};
use tch::{Cuda, Device};

use crate::experiment::Train;
use crate::torch;

/// The device of `train.device`: `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// When CUDA is asked for and this build, or this machine, has none.
pub fn device(train: &Train) -> Result<Device> {
    let index = match train.device.as_str() {
        "auto" if Cuda::is_available() => 0,
        "auto" | "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        name => match name.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => index,
            None => {
                bail!("train.device = {name:?} is no device; use \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"")
            }
        },
    };
    if !cfg!(feature = "cuda") {
        bail!(
            "train.device = {:?}, but this oss-run was built without CUDA; rebuild with `CUDA=1 make build`, or set \
             train.device = \"cpu\"",
            train.device
        );
    }
    let found = Cuda::device_count();
    if index as i64 >= found {
        bail!(
            "train.device = {:?}, but libtorch sees {found} CUDA devices; check `nvidia-smi` and CUDA_VISIBLE_DEVICES, \
             or set train.device = \"cpu\"",
            train.device
        );
    }
    Ok(Device::Cuda(index))
}

/// Sets threads and, for `deterministic`, kernels that repeat bit for bit.
pub fn set_up(train: &Train, deterministic: bool) -> Result<()> {
    if let Some(threads) = train.threads {
        tch::set_num_threads(threads as i32);
    }
    torch::set_deterministic(deterministic)
}
