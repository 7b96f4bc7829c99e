//! The environment of an attempt: the program, the machine and the git state.
//!
//! Recorded for users and for `reproduce`. It is in no key, because it does not change what a run means.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use super::git::GitState;
use super::redact;

/// Environment variables that affect speed or numerics. This is an allowlist, because an environment can contain
/// secrets under any name.
const KEPT_VARIABLES: [&str; 17] = [
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MALLOC_ARENA_MAX",
    "MKL_NUM_THREADS",
    "NCCL_ALGO",
    "NCCL_DEBUG",
    "NCCL_NVLS_ENABLE",
    "NCCL_SOCKET_IFNAME",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RAYON_NUM_THREADS",
    "SLURM_JOB_ID",
    "WORLD_SIZE",
];

/// The environment of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub program: String,
    /// The repository of the experiment file, if it is in one and `git` is installed.
    pub git: Option<GitState>,
    /// The machine.
    pub host: Host,
    /// NVIDIA's driver and GPUs, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvidia: Option<Nvidia>,
    /// Environment variables that affect speed or numerics, if set.
    pub variables: BTreeMap<String, String>,
}

/// NVIDIA's kernel driver and its GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nvidia {
    /// Its version, such as `580.82.07`.
    pub driver: String,
    /// Models of the GPUs, ordered by bus address.
    pub gpus: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Operating system and version.
    pub system: String,
    /// CPU model.
    pub cpu: String,
    /// CPU cores available to this process.
    pub cores: usize,
    /// Memory, or the control group's limit if that is lower.
    pub memory_bytes: u64,
}

impl Environment {
    /// Captures this machine and the git state of `dir`.
    pub fn capture(dir: &Path) -> Self {
        Self {
            program: env!("CARGO_PKG_VERSION").into(),
            git: GitState::of(dir),
            host: Host::this(),
            nvidia: Nvidia::under(Path::new("/proc/driver/nvidia")),
            variables: kept_variables(|name| std::env::var(name).ok()),
        }
    }
}

impl Nvidia {
    /// The driver as reported under `proc`; `None` if there is none.
    fn under(proc: &Path) -> Option<Self> {
        let version = fs::read_to_string(proc.join("version")).ok()?;
        let mut gpus: Vec<_> = fs::read_dir(proc.join("gpus"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|gpu| {
                (gpu.file_name(), fs::read_to_string(gpu.path().join("information")).unwrap_or_default())
            })
            .collect();
        gpus.sort();
        let model = |(_, text): (_, String)| {
            text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()))
        };
        Some(Self { driver: driver_version(&version)?, gpus: gpus.into_iter().filter_map(model).collect() })
    }
}

/// Parses `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  ...`: the first number with a dot.
fn driver_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

impl Host {
    /// The machine that this process runs on. Unknown fields are left empty.
    pub fn this() -> Self {
        let system = System::new_with_specifics(
            RefreshKind::nothing()
                .with_cpu(CpuRefreshKind::nothing())
                .with_memory(MemoryRefreshKind::nothing().with_ram()),
        );
        let memory_bytes = system
            .cgroup_limits()
            .map_or(system.total_memory(), |limits| limits.total_memory.min(system.total_memory()));
        Self {
            name: System::host_name().unwrap_or_default(),
            system: System::long_os_version().unwrap_or_default(),
            cpu: system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes,
        }
    }
}

fn kept_variables(value: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    KEPT_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), redact(&value(name)?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_and_cores() {
        let host = Host::this();
        assert!(!host.name.is_empty());
        assert!(!host.cpu.is_empty());
        assert!(host.cores >= 1);
        assert!(host.memory_bytes > 1 << 28, "{host:?}");
    }

    #[test]
    fn only_listed_variables_are_kept_and_without_passwords() {
        let kept = kept_variables(|name| match name {
            "HF_ENDPOINT" => Some("https://me:secret@mirror.example".into()),
            "HF_TOKEN" => Some("hf_secret".into()),
            "OMP_NUM_THREADS" => Some("2".into()),
            _ => None,
        });
        assert_eq!(
            kept.into_iter().collect::<Vec<_>>(),
            [
                ("HF_ENDPOINT".into(), "https://[redacted]@mirror.example".into()),
                ("OMP_NUM_THREADS".to_owned(), "2".to_owned()),
            ]
        );
    }

    #[test]
    fn the_driver_and_gpus_are_read_from_proc() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Nvidia::under(dir.path()), None);
        let version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs)\nGCC version: 12.2.0\n";
        fs::write(dir.path().join("version"), version).unwrap();
        for (bus, model) in [("0000:41:00.0", "NVIDIA H200"), ("0000:17:00.0", "NVIDIA L4")] {
            let gpu = dir.path().join("gpus").join(bus);
            fs::create_dir_all(&gpu).unwrap();
            fs::write(gpu.join("information"), format!("Model: \t\t {model}\nIRQ: 12\n")).unwrap();
        }
        let nvidia = Nvidia::under(dir.path()).unwrap();
        assert_eq!(nvidia.driver, "580.82.07");
        assert_eq!(nvidia.gpus, ["NVIDIA L4", "NVIDIA H200"]);
    }
}
