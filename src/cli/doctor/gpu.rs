//! GPUs, their memory and their driver, as reported by `nvidia-smi`.

use std::path::Path;
use std::process::Command;

use tch::Cuda;

use super::Check;

/// Oldest driver (major version) that supports CUDA 13.0, which this libtorch is built with.
const OLDEST_DRIVER: u32 = 580;

/// Checks the GPUs and their driver.
pub fn checks() -> Vec<Check> {
    let cards = cards();
    let has_driver = cards.is_some() || Path::new("/dev/nvidiactl").exists();
    let seen = Cuda::is_available().then(Cuda::device_count);
    let mut checks = vec![devices(cfg!(feature = "cuda"), has_driver, seen, cards.as_deref())];
    checks.extend(cards.as_deref().and_then(driver));
    checks
}

/// `name, MiB, driver version`, one line per GPU; `None` without a working driver.
fn cards() -> Option<String> {
    let query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then_some(text)
}

/// `has_cuda`: this program was built with CUDA. `seen`: the number of devices that libtorch found.
fn devices(has_cuda: bool, has_driver: bool, seen: Option<i64>, cards: Option<&str>) -> Check {
    let names = || {
        let name = |line: &str| {
            let mut fields = line.split(", ");
            Some(format!("{} ({:.0} GB)", fields.next()?, fields.next()?.parse::<f64>().ok()? * 1.048576e-3))
        };
        cards.unwrap_or_default().lines().filter_map(name).collect::<Vec<_>>().join(", ")
    };
    let what = "GPU";
    match (has_cuda, has_driver, seen) {
        (true, _, Some(count)) => Check::good(what, format!("{count} CUDA devices: {}", names())),
        (true, _, None) => Check::warning(
            what,
            "built for CUDA, but libtorch sees no device",
            "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or set train.device = \"cpu\"",
        ),
        (false, true, _) => Check::warning(
            what,
            format!("built for CPU only, but this machine has {}", names()),
            "rebuild with `CUDA=1 make build`",
        ),
        (false, false, _) => Check::good(what, "none; training runs on the CPU"),
    }
}

/// Whether the driver is new enough; `None` if its version cannot be parsed.
fn driver(cards: &str) -> Option<Check> {
    let version = cards.lines().next()?.rsplit(", ").next()?.trim();
    let major: u32 = version.split('.').next()?.parse().ok()?;
    Some(if major >= OLDEST_DRIVER {
        Check::good("driver", version)
    } else {
        Check::warning(
            "driver",
            format!("{version} is too old for this libtorch"),
            format!("install {OLDEST_DRIVER} or newer, or set train.device = \"cpu\""),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NVIDIA_SMI: &str = "NVIDIA H200, 143771, 570.124.06\nNVIDIA H200, 143771, 570.124.06\n";

    #[test]
    fn gpus_are_listed_with_their_memory() {
        let shown =
            |has_cuda, has_driver, seen, cards| devices(has_cuda, has_driver, seen, cards).to_string();
        assert_eq!(
            shown(true, true, Some(2), Some(NVIDIA_SMI)),
            "ok      GPU         2 CUDA devices: NVIDIA H200 (151 GB), NVIDIA H200 (151 GB)"
        );
        assert!(shown(false, true, None, Some(NVIDIA_SMI)).ends_with("; rebuild with `CUDA=1 make build`"));
        assert!(shown(true, true, None, Some(NVIDIA_SMI)).contains("CUDA_VISIBLE_DEVICES"));
        assert!(shown(false, false, None, None).ends_with("training runs on the CPU"));
    }

    #[test]
    fn an_old_driver_is_reported() {
        let old = driver(NVIDIA_SMI).unwrap().to_string();
        assert!(old.contains("570.124.06 is too old") && old.contains("; install 580 or newer"), "{old}");
        assert_eq!(
            driver("NVIDIA L4, 23034, 580.65.06\n").unwrap().to_string(),
            "ok      driver      580.65.06"
        );
        assert!(driver("").is_none());
    }
}
