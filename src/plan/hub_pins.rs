//! Commits of hub revisions, pinned when first resolved.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use oss_config::Hub;
use oss_config::error::Hint;
use oss_data::sources::hub::{Hub as Client, HubConfig, Pinned, Repository};
use oss_data::sources::{Identity, Watch};
use oss_runs::run_dir::{RunsDir, write_json};

/// The pinned revisions of a runs directory.
pub struct Pins {
    path: PathBuf,
    known: BTreeMap<String, Identity>,
    changed: bool,
}

impl Pins {
    /// The pins of `runs`. If the file is missing or corrupted, the hub is queried again.
    pub fn open(runs: &RunsDir) -> Self {
        let path = runs.prepared("hub.json");
        let known =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, known, changed: false }
    }

    /// The identity of `hub`: pinned, or given directly by a full commit and file names.
    pub fn get(&self, hub: &Hub) -> Option<Identity> {
        let is_commit = hub.revision.len() == 40 && hub.revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_pattern = |name: &String| name.contains(['*', '?', '[']);
        if is_commit && !hub.files.iter().any(is_pattern) {
            let Hub { repo, revision, files } = hub.clone();
            return Some(Identity::Hub { repo, commit: revision, files });
        }
        self.known.get(&name(hub)).cloned()
    }

    /// Pins `hub`.
    pub fn set(&mut self, hub: &Hub, identity: Identity) {
        self.changed |= self.known.insert(name(hub), identity.clone()) != Some(identity);
    }

    /// Writes new pins to disk.
    ///
    /// # Errors
    /// The runs directory cannot be written.
    pub fn save(&self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder)
            .and_then(|()| write_json(&self.path, &self.known))
            .with_context(|| format!("cannot write {}", self.path.display()))
            .hint("choose another directory with --runs-dir")
    }
}

/// A model repository at its commit; `some_file` of it is requested if a mirror knows no revisions. Sends no request if
/// `revision` is a commit.
///
/// # Errors
/// The repository or revision does not exist, or the hub is unreachable.
pub fn pin_model(repo: &str, revision: &str, some_file: &str, watch: Watch<'_>) -> Result<Pinned> {
    let repository = Repository::model(repo, revision)?;
    Client::new(HubConfig::from_env())?.pin(&repository, Some(some_file), watch)
}

/// The directory of a model at `commit` in the cache, if it contains `file`. Sends no request.
pub fn downloaded_model(repo: &str, commit: &str, file: &str) -> Option<PathBuf> {
    let repository = Repository::model(repo, commit).ok()?;
    let folder = Client::new(HubConfig::from_env()).ok()?.snapshot(&repository)?;
    folder.join(file).is_file().then_some(folder)
}

fn name(hub: &Hub) -> String {
    format!("{}@{} {}", hub.repo, hub.revision, hub.files.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(revision: &str, files: &[&str]) -> Hub {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        Hub { repo: "a/b".into(), revision: revision.into(), files }
    }

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_branch_is_known_once_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunsDir::new(dir.path());
        let mut pins = Pins::open(&runs);
        let branch = hub("main", &["*.txt"]);
        assert_eq!(pins.get(&branch), None);
        let identity =
            Identity::Hub { repo: "a/b".into(), commit: COMMIT.into(), files: vec!["x.txt".into()] };
        pins.set(&branch, identity.clone());
        pins.save().unwrap();
        let pins = Pins::open(&runs);
        assert_eq!(pins.get(&branch), Some(identity));
        assert_eq!(pins.get(&hub("main", &["y.txt"])), None);
    }

    #[test]
    fn a_commit_with_named_files_needs_no_pin() {
        let pins = Pins::open(&RunsDir::new("/nowhere"));
        assert!(pins.get(&hub(COMMIT, &["x.txt"])).is_some());
        assert_eq!(pins.get(&hub(COMMIT, &["*.txt"])), None);
        assert_eq!(pins.get(&hub("v1", &["x.txt"])), None);
    }
}
