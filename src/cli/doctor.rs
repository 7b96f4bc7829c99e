//! `oss-run doctor`: is this machine fit, and what to do where it is not.

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};
use indicatif::BinaryBytes;
use tch::Cuda;

use super::output::print;
use crate::data::Tokenizer;
use crate::data::sources::Watch;
use crate::data::sources::hub::{Hub, HubConfig, Repository};
use crate::experiment::TokenizerChoice;
use crate::run_dir::{Host, RunsDir, free_bytes};
use crate::torch;

/// How a check went.
enum Verdict {
    Good,
    /// Something that not everybody needs.
    Warning {
        fix: String,
    },
    Bad {
        fix: String,
    },
}

/// One line of the report.
struct Check {
    what: &'static str,
    found: String,
    verdict: Verdict,
}

impl Check {
    fn good(what: &'static str, found: String) -> Self {
        Self { what, found, verdict: Verdict::Good }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, fix) = match &self.verdict {
            Verdict::Good => ("ok     ", None),
            Verdict::Warning { fix } => ("warning", Some(fix)),
            Verdict::Bad { fix } => ("bad    ", Some(fix)),
        };
        write!(f, "{mark} {:<10} {}", self.what, self.found)?;
        fix.map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

/// Checks everything and prints a line each.
///
/// # Errors
/// Something that every run needs is bad.
pub fn doctor(runs: &RunsDir) -> Result<()> {
    let checks = [libtorch(), gpu(), memory(), disk(runs.root()), tokenizer(), hub()];
    let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
    print(&lines)?;
    let bad = checks.iter().filter(|check| matches!(check.verdict, Verdict::Bad { .. })).count();
    if bad > 0 {
        bail!("{bad} of {} checks are bad; each line above ends with its fix", checks.len());
    }
    Ok(())
}

fn libtorch() -> Check {
    let sum = f64::try_from(
        tch::Tensor::ones([8, 8], (tch::Kind::Double, tch::Device::Cpu)).sum(tch::Kind::Double),
    );
    let found = format!(
        "{} on {} threads, {} cores of {}",
        torch::LIBTORCH_VERSION,
        tch::get_num_threads(),
        Host::this().cores,
        Host::this().cpu
    );
    match sum {
        Ok(64.0) => Check::good("libtorch", found),
        _ => Check {
            what: "libtorch",
            found: format!("{found}, but it does not compute"),
            verdict: Verdict::Bad { fix: "run `make setup` again".to_owned() },
        },
    }
}

fn gpu() -> Check {
    let built = cfg!(feature = "cuda");
    let has_driver =
        Path::new("/proc/driver/nvidia/version").exists() || Path::new("/dev/nvidiactl").exists();
    match (built, has_driver, Cuda::is_available()) {
        (true, _, true) => Check::good("GPU", format!("{} CUDA devices", Cuda::device_count())),
        (false, true, _) => Check {
            what: "GPU",
            found: "there is one, and this program was built for the CPU".to_owned(),
            verdict: Verdict::Warning { fix: "rebuild with `CUDA=1 make build`".to_owned() },
        },
        (true, ..) => Check {
            what: "GPU",
            found: "built for CUDA, and libtorch sees no device".to_owned(),
            verdict: Verdict::Warning {
                fix: "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or set train.device = \"cpu\"".to_owned(),
            },
        },
        (false, false, _) => Check::good("GPU", "none; training runs on the CPU".to_owned()),
    }
}

/// Memory that the smallest experiments need.
const LITTLE_MEMORY_BYTES: u64 = 2 << 30;

fn memory() -> Check {
    let bytes = Host::this().memory_bytes;
    let found = BinaryBytes(bytes).to_string();
    if bytes >= LITTLE_MEMORY_BYTES {
        return Check::good("memory", found);
    }
    let fix = "run small experiments only; `oss-run plan` says what one needs".to_owned();
    Check { what: "memory", found, verdict: Verdict::Warning { fix } }
}

/// Room that the quickstart needs with its checkpoints.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;

fn disk(runs: &Path) -> Check {
    let what = "disk";
    let existing = runs.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    if let Err(error) = tempfile::tempfile_in(existing) {
        let found = format!("cannot write to {} ({error})", existing.display());
        let fix = "make it writable, or give another place with --runs-dir".to_owned();
        return Check { what, found, verdict: Verdict::Bad { fix } };
    }
    match free_bytes(runs) {
        Ok(free) if free < LITTLE_ROOM_BYTES => Check {
            what,
            found: format!("{} free at {}", BinaryBytes(free), runs.display()),
            verdict: Verdict::Warning { fix: "free some, or give another place with --runs-dir".to_owned() },
        },
        Ok(free) => Check::good(what, format!("{} free at {}", BinaryBytes(free), runs.display())),
        Err(error) => Check::good(what, format!("free room unknown ({error})")),
    }
}

fn tokenizer() -> Check {
    let name = "o200k_harmony";
    let text = "Once upon a time";
    let loaded = Tokenizer::load(&TokenizerChoice::Named(name.to_owned()));
    let encoded = loaded.map_err(anyhow::Error::from).and_then(|tokenizer| {
        let tokens = tokenizer.encode(text)?;
        Ok((tokenizer.decode(&tokens), tokenizer.vocab_size()))
    });
    match encoded {
        Ok((back, size)) if back == text => Check::good("tokenizer", format!("{name}, {size} tokens")),
        Ok((back, _)) => Check {
            what: "tokenizer",
            found: format!("{name} turns {text:?} into {back:?}"),
            verdict: Verdict::Bad { fix: "build the program again".to_owned() },
        },
        Err(error) => Check {
            what: "tokenizer",
            found: format!("{error:#}"),
            verdict: Verdict::Bad { fix: "build the program again".to_owned() },
        },
    }
}

/// A small public repository that is asked for.
const KNOWN_REPOSITORY: &str = "roneneldan/TinyStories";

fn hub() -> Check {
    let what = "hub";
    let config =
        HubConfig { retries: 0, timeout: std::time::Duration::from_secs(5), ..HubConfig::from_env() };
    if config.offline {
        return Check::good(what, "offline, as HF_HUB_OFFLINE asks".to_owned());
    }
    let endpoint = config.endpoint.clone();
    let token = if config.token.is_some() { "with a token" } else { "without a token" };
    let asked = Repository::dataset(KNOWN_REPOSITORY, "main")
        .and_then(|repository| Ok((Hub::new(config)?, repository)))
        .map_err(anyhow::Error::from)
        .and_then(|(hub, repository)| hub.pin(&repository, None, Watch::quiet()));
    match asked {
        Ok(_) => Check::good(what, format!("{endpoint} answers, {token}")),
        Err(error) => Check {
            what,
            found: format!("{error:#}"),
            verdict: Verdict::Warning { fix: "only experiments with `hub = ...` need it".to_owned() },
        },
    }
}
