//! Divides the GPUs among the trials that run in parallel.

use tch::Cuda;

use super::SweepError;

/// The part of the machine assigned to a trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuAssignment {
    /// Value of `CUDA_VISIBLE_DEVICES`; `None` leaves it unchanged.
    pub gpus: Option<String>,
}

/// The GPUs for each of `parallel` trials.
pub fn assign_gpus(parallel: u64, ranks: u64, device: &str) -> Result<Vec<GpuAssignment>, SweepError> {
    let gpus =
        if matches!(device, "auto" | "cuda") && Cuda::is_available() { Cuda::device_count() } else { 0 };
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    divide(parallel, ranks, gpus.unsigned_abs(), visible.as_deref())
}

fn divide(
    parallel: u64,
    ranks: u64,
    gpus: u64,
    visible: Option<&str>,
) -> Result<Vec<GpuAssignment>, SweepError> {
    if gpus == 0 || parallel == 1 {
        return Ok(vec![GpuAssignment::default(); parallel as usize]);
    }
    let each = gpus / parallel;
    if each < ranks {
        return Err(SweepError::TooParallel { parallel, gpus, ranks });
    }
    let names: Vec<String> = match visible {
        Some(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
        None => (0..gpus).map(|gpu| gpu.to_string()).collect(),
    };
    Ok(names
        .chunks(each as usize)
        .take(parallel as usize)
        .map(|names| GpuAssignment { gpus: Some(names.join(",")) })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_config::error::ErrorReport;

    #[test]
    fn gpus_are_divided_among_trials() {
        let gpus = |parallel, ranks, gpus, visible| {
            let shares = divide(parallel, ranks, gpus, visible)?;
            Ok::<_, SweepError>(
                shares.into_iter().map(|share| share.gpus.unwrap_or_default()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(gpus(2, 1, 0, None).unwrap(), ["", ""], "on the CPU, cores are divided instead");
        assert_eq!(gpus(1, 4, 8, None).unwrap(), [""], "a single trial gets all GPUs");
        assert_eq!(gpus(2, 2, 5, None).unwrap(), ["0,1", "2,3"]);
        assert_eq!(gpus(3, 1, 3, Some("4, 6,GPU-7")).unwrap(), ["4", "6", "GPU-7"]);
        let error = ErrorReport::of(gpus(3, 2, 4, None).unwrap_err()).to_string();
        assert!(error.ends_with("set sweep.parallel to at most 2"), "{error}");
    }
}
