//! What a start of a run took place in: the program, the machine, the sources around it.
//!
//! Recorded for people and for `reproduce`; none of it is in a key, since none of it changes what a run means.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use super::redact;

/// Environment variables that change speed or numerics. A list of what is kept, not of what is left out: an
/// environment holds secrets under any name.
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

/// The surroundings of one start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub program: String,
    /// The repository around the working directory, if it is in one and `git` is installed.
    pub git: Option<GitState>,
    /// The machine.
    pub host: Host,
    /// Environment variables that change speed or numerics, where set.
    pub variables: BTreeMap<String, String>,
}

/// A git working tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The commit that is checked out, in hexadecimal.
    pub commit: String,
    /// Whether tracked files differ from it.
    pub dirty: bool,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its network name.
    pub name: String,
    /// Its operating system and version.
    pub system: String,
    /// Model of its processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Its memory, or the control group's if that is less.
    pub memory_bytes: u64,
}

impl Environment {
    /// Looks at this machine and at the git state of `dir`.
    pub fn capture(dir: &Path) -> Self {
        Self {
            program: env!("CARGO_PKG_VERSION").into(),
            git: GitState::of(dir),
            host: Host::this(),
            variables: kept_variables(|name| std::env::var(name).ok()),
        }
    }
}

impl GitState {
    /// The state of the working tree around `dir`; none outside a repository or without `git`.
    pub fn of(dir: &Path) -> Option<Self> {
        let commit = git(dir, &["rev-parse", "HEAD"])?.trim().to_owned();
        let changes = git(dir, &["status", "--porcelain", "--untracked-files=no"])?;
        Some(Self { commit, dirty: !changes.trim().is_empty() })
    }
}

impl Host {
    /// The machine that this process runs on. What it does not tell is left empty.
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

/// What `git` prints, if it is there and succeeds.
fn git(dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(arguments)
        // Looking must not write the index of a repository that others work in.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
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
    fn git_state_follows_the_working_tree() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(GitState::of(dir.path()), None);
        let run = |arguments: &[&str]| git(dir.path(), arguments);
        if run(&["init", "--quiet"]).is_none() {
            return; // No git here: the state above is all there is to see.
        }
        std::fs::write(dir.path().join("a"), "1").unwrap();
        run(&["add", "a"]).unwrap();
        run(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "A file"]).unwrap();
        let clean = GitState::of(dir.path()).unwrap();
        assert_eq!(clean.commit.len(), 40);
        assert!(!clean.dirty);
        std::fs::write(dir.path().join("a"), "2").unwrap();
        assert!(GitState::of(dir.path()).unwrap().dirty);
    }
}
