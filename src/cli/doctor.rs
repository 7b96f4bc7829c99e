//! `oss-run doctor`: checks the machine and suggests fixes.

mod gpu;

use std::env;
use std::fmt;
use std::io;
use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::BinaryBytes;
use serde::Serialize;
use serde_json::json;

use super::output::{print, print_json};
use oss_config::TokenizerChoice;
use oss_data::Tokenizer;
use oss_data::sources::Watch;
use oss_data::sources::hub::{Hub, HubConfig, Repository};
use oss_runs::run_dir::{Host, RunsDir, free_bytes};
use oss_runs::storage::FileLock;

/// Arguments of `oss-run doctor`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print the checks as one JSON document
    #[arg(long)]
    json: bool,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// Only some experiments are affected.
    Warning,
    Bad,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// How to fix it; `None` if there is no problem.
    fix: Option<String>,
}

impl Check {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), fix: None }
    }

    fn warning(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    fn bad(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Bad, found: found.into(), fix: Some(fix.into()) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Bad => "bad",
        };
        write!(f, "{mark:<7} {:<11} {}", self.what, self.found)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

/// Runs all checks and prints one line for each.
///
/// # Errors
/// A check that every run depends on failed.
pub fn doctor(arguments: &Arguments, runs: &RunsDir) -> Result<()> {
    let place = existing(runs.root());
    let mut checks = vec![libtorch()];
    checks.extend(gpu::checks());
    checks.extend([memory(), disk(runs.root(), place), locks(place), tokenizer(), tensorboard(), hub()]);
    if arguments.json {
        print_json(&json!({ "checks": checks }))?;
    } else {
        let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
        print(&lines)?;
    }
    let bad = checks.iter().filter(|check| check.verdict == Verdict::Bad).count();
    if bad > 0 {
        bail!("{bad} of {} checks failed", checks.len());
    }
    Ok(())
}

fn libtorch() -> Check {
    let sum = f64::try_from(
        tch::Tensor::ones([8, 8], (tch::Kind::Double, tch::Device::Cpu)).sum(tch::Kind::Double),
    );
    let found = format!(
        "{} on {} threads, {} cores of {}",
        oss_torch::LIBTORCH_VERSION,
        tch::get_num_threads(),
        Host::this().cores,
        Host::this().cpu
    );
    match sum {
        Ok(64.0) => Check::good("libtorch", found),
        _ => {
            Check::bad("libtorch", format!("{found}, but it returns wrong results"), "run `make setup` again")
        }
    }
}

/// Enough for the smallest experiments.
const LITTLE_MEMORY_BYTES: u64 = 2 << 30;

fn memory() -> Check {
    let bytes = Host::this().memory_bytes;
    let found = BinaryBytes(bytes).to_string();
    if bytes >= LITTLE_MEMORY_BYTES {
        return Check::good("memory", found);
    }
    Check::warning("memory", found, "run only small experiments; `oss-run plan` estimates their memory")
}

/// Disk space for the quickstart and its checkpoints.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;

/// `runs` or its nearest ancestor that exists.
fn existing(runs: &Path) -> &Path {
    let found = runs.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    if found.as_os_str().is_empty() { Path::new(".") } else { found }
}

fn disk(runs: &Path, place: &Path) -> Check {
    let what = "disk";
    if let Err(error) = tempfile::tempfile_in(place) {
        let found = format!("cannot write to {} ({error})", place.display());
        return Check::bad(what, found, "make it writable, or choose another directory with --runs-dir");
    }
    match free_bytes(runs) {
        Ok(free) => {
            let found = format!("{} free at {}", BinaryBytes(free), runs.display());
            if free < LITTLE_ROOM_BYTES {
                return Check::warning(
                    what,
                    found,
                    "free some space, or choose another directory with --runs-dir",
                );
            }
            Check::good(what, found)
        }
        Err(error) => Check::good(what, format!("free space unknown ({error})")),
    }
}

/// Whether file locks work, which is not certain on network file systems.
fn locks(place: &Path) -> Check {
    let what = "locks";
    let try_twice = || -> io::Result<bool> {
        let file = tempfile::NamedTempFile::new_in(place)?;
        let first = FileLock::try_exclusive(file.path())?;
        Ok(first.is_some() && FileLock::try_exclusive(file.path())?.is_none())
    };
    let fix = "keep runs on a local disk with --runs-dir, or mount the file system with locking enabled";
    match try_twice() {
        Ok(true) => Check::good(what, format!("file locks work at {}", place.display())),
        Ok(false) => Check::bad(what, format!("file locks have no effect at {}", place.display()), fix),
        Err(error) => Check::bad(what, format!("file locks fail at {} ({error})", place.display()), fix),
    }
}

fn tensorboard() -> Check {
    let paths = env::var_os("PATH").unwrap_or_default();
    let program = env::split_paths(&paths).map(|dir| dir.join("tensorboard")).find(|path| path.is_file());
    match program {
        Some(path) => Check::good("tensorboard", path.display().to_string()),
        None => Check::warning(
            "tensorboard",
            "not installed; needed to view training curves",
            "run `pip install tensorboard`, here or wherever you view them",
        ),
    }
}

fn tokenizer() -> Check {
    let name = "o200k_harmony";
    let text = "Once upon a time";
    let loaded = Tokenizer::load(&TokenizerChoice::Named(name.to_owned()), None);
    let encoded = loaded.map_err(anyhow::Error::from).and_then(|tokenizer| {
        let tokens = tokenizer.encode(text)?;
        Ok((tokenizer.decode(&tokens), tokenizer.vocab_size()))
    });
    match encoded {
        Ok((back, size)) if back == text => Check::good("tokenizer", format!("{name}, {size} tokens")),
        Ok((back, _)) => {
            Check::bad("tokenizer", format!("{name} turns {text:?} into {back:?}"), "rebuild oss-run")
        }
        Err(error) => Check::bad("tokenizer", format!("{error:#}"), "rebuild oss-run"),
    }
}

/// A small public repository to query.
const KNOWN_REPOSITORY: &str = "roneneldan/TinyStories";

fn hub() -> Check {
    let what = "hub";
    let config =
        HubConfig { retries: 0, timeout: std::time::Duration::from_secs(5), ..HubConfig::from_env() };
    if config.offline {
        return Check::good(what, "offline (HF_HUB_OFFLINE is set)".to_owned());
    }
    let endpoint = config.endpoint.clone();
    let token = if config.token.is_some() { "with a token" } else { "without a token" };
    let asked = Repository::dataset(KNOWN_REPOSITORY, "main")
        .and_then(|repository| Ok((Hub::new(config)?, repository)))
        .map_err(anyhow::Error::from)
        .and_then(|(hub, repository)| hub.pin(&repository, None, Watch::quiet()));
    match asked {
        Ok(_) => Check::good(what, format!("{endpoint} is reachable, {token}")),
        Err(error) => {
            Check::warning(what, format!("{error:#}"), "needed only by experiments with `hub = ...`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_ends_with_its_fix() {
        assert_eq!(Check::good("disk", "1 GB").to_string(), "ok      disk        1 GB");
        assert_eq!(Check::bad("disk", "none", "buy one").to_string(), "bad     disk        none; buy one");
        let check = serde_json::to_value(Check::warning("hub", "silent", "wait")).unwrap();
        assert_eq!(check, json!({ "what": "hub", "verdict": "warning", "found": "silent", "fix": "wait" }));
    }

    #[test]
    fn locks_and_space_are_checked_where_runs_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("not/yet");
        assert_eq!(existing(&runs), folder.path());
        assert_eq!(existing(Path::new("runs-that-nobody-made")), Path::new("."));
        assert_eq!(locks(folder.path()).verdict, Verdict::Good);
        assert_eq!(locks(Path::new("/proc")).verdict, Verdict::Bad);
    }
}
