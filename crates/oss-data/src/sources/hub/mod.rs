//! The Hugging Face hub: a revision pinned to its commit, files downloaded once into the cache that other clients
//! share, resumed where they broke off, and checked by size and digest.
//!
//! Names of addresses and of the cache's folders are hf-hub's. The transport is our own, because hf-hub neither checks
//! what arrives nor whether a resumed answer goes on where it should, gives up on a lock after five seconds, and
//! cannot be stopped.

mod config;
mod download;
mod error;
mod http;
mod metadata;
mod names;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use hf_hub::{Cache, CacheRepo};
use serde::Deserialize;

pub use config::{HubConfig, Token};
pub use error::HubError;
pub use names::{Repository, check_file_name, check_file_names};

use super::Watch;
use http::{Client, Failure, Subject};
use names::is_commit;

/// The hub, or its cache when offline.
#[derive(Clone, Debug)]
pub struct Hub {
    client: Client,
    cache: Cache,
}

/// A repository at a commit, whose files never change.
#[derive(Clone, Debug)]
pub struct Pinned {
    hub: Hub,
    repository: Repository,
    commit: String,
}

/// What the hub tells of a revision.
#[derive(Deserialize)]
struct RevisionInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// The hub that `config` describes; asks nothing yet.
    ///
    /// # Errors
    /// An endpoint or a token that can be none.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        let cache = Cache::new(config.cache.clone());
        Ok(Self { client: Client::new(config)?, cache })
    }

    /// Finds the commit of the repository's revision: the revision itself if it is a full commit, else as the hub
    /// says, else (offline) as the cache remembers. `some_file` of the repository is asked for where a mirror does
    /// not answer questions about revisions.
    ///
    /// # Errors
    /// A repository or revision that the hub does not know or does not let us see; no connection; offline and not in
    /// the cache.
    pub fn pin(&self, repository: &Repository, some_file: Option<&str>, watch: Watch<'_>) -> Result<Pinned> {
        let commit = match repository.pinned_commit() {
            Some(commit) => commit,
            None if self.client.config.offline => {
                self.remembered_commit(repository).ok_or_else(|| HubError::Offline {
                    what: format!("revision {} of {}", repository.revision(), repository.label()),
                    cache: self.client.config.cache.clone(),
                })?
            }
            None => {
                let commit = self.ask_commit(repository, some_file, watch)?;
                self.remember_commit(repository, &commit)?;
                commit
            }
        };
        Ok(Pinned { hub: self.clone(), repository: repository.clone(), commit })
    }

    fn ask_commit(
        &self,
        repository: &Repository,
        some_file: Option<&str>,
        watch: Watch<'_>,
    ) -> Result<String> {
        let revision = repository.revision();
        let asked = self.revision_info(repository, revision, watch).map(|info| info.sha);
        let plain_file = some_file.filter(|file| !is_pattern(file));
        let found = match (asked.map_err(|error| self.with_cached_advice(repository, error)), plain_file) {
            (Err(error), Some(file)) if matches!(error, HubError::NotFound { .. }) => {
                metadata::ask(&self.client, repository, revision, file, watch)?.commit.ok_or(error)
            }
            (asked, _) => asked,
        }?;
        if !is_commit(&found) {
            let what = format!("{} at {revision}", repository.label());
            let problem = "does not name a commit".into();
            return Err(HubError::Answer { what, problem }.into());
        }
        Ok(found)
    }

    fn revision_info(
        &self,
        repository: &Repository,
        revision: &str,
        watch: Watch<'_>,
    ) -> Result<RevisionInfo, HubError> {
        let url = format!("{}/api/{}", self.client.config.endpoint, repository.at(revision).api_url());
        let subject = Subject { repository, revision, file: None };
        self.client.persist(&subject, watch, |_| {
            let response = self.client.get(&url, None, true)?;
            let mut response = self.client.accept(response, &subject)?;
            // A large repository's listing runs to megabytes, well above the reader's own limit.
            let info = response.body_mut().with_config().limit(1 << 30).read_json();
            info.map_err(|error| match error {
                ureq::Error::Io(error) => http::passing(error.to_string()),
                ureq::Error::Timeout(_) => http::passing("no answer in time".into()),
                _ => {
                    let problem = "is not the description of a repository".into();
                    Failure::from(HubError::Answer { what: subject.label(), problem })
                }
            })
        })
    }

    fn with_cached_advice(&self, repository: &Repository, error: HubError) -> HubError {
        match (error, self.remembered_commit(repository)) {
            (HubError::Unreachable { endpoint, reason, .. }, Some(commit)) => {
                let cached = format!(", or set HF_HUB_OFFLINE=1 to use commit {commit} from the cache");
                HubError::Unreachable { endpoint, reason, cached }
            }
            (other, _) => other,
        }
    }

    fn cached(&self, repository: &Repository, revision: &str) -> CacheRepo {
        self.cache.repo(repository.at(revision))
    }

    fn folder(&self, repository: &Repository) -> PathBuf {
        self.cache.path().join(repository.at("main").folder_name())
    }

    fn remembered_commit(&self, repository: &Repository) -> Option<String> {
        let path = self.folder(repository).join("refs").join(repository.revision());
        let commit = fs::read_to_string(path).ok()?;
        Some(commit.trim().to_string()).filter(|commit| is_commit(commit))
    }

    fn remember_commit(&self, repository: &Repository, commit: &str) -> Result<(), HubError> {
        self.cached(repository, repository.revision()).create_ref(commit).map_err(|source| HubError::Cache {
            path: self.folder(repository).join("refs").join(repository.revision()),
            source,
        })
    }
}

impl Pinned {
    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The full commit.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Names of all the commit's files, sorted; offline, of those in the cache.
    ///
    /// # Errors
    /// As [`Hub::pin`].
    pub fn list(&self, watch: Watch<'_>) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if self.hub.client.config.offline {
            let snapshot = self.snapshot();
            list_folder(&snapshot, &snapshot, &mut names).map_err(|_| HubError::Offline {
                what: format!("{} at {}", self.repository.label(), self.commit),
                cache: self.hub.client.config.cache.clone(),
            })?;
        } else {
            let info = self.hub.revision_info(&self.repository, &self.commit, watch)?;
            names.extend(info.siblings.into_iter().map(|sibling| sibling.rfilename));
            // What the hub says becomes paths here.
            names.retain(|name| check_file_name(name).is_ok());
        }
        names.sort();
        Ok(names)
    }

    /// Replaces the patterns (`*`, `?`, `[...]`; a `*` stays within a folder, `**` does not) among `wanted` by the
    /// files that match, sorted; other names pass unasked. A name that occurs twice is kept once.
    ///
    /// # Errors
    /// A malformed pattern or one that matches nothing; as [`Self::list`].
    pub fn expand(&self, wanted: &[String], watch: Watch<'_>) -> Result<Vec<String>> {
        let listed = if wanted.iter().any(|name| is_pattern(name)) { self.list(watch)? } else { Vec::new() };
        let mut files: Vec<String> = Vec::new();
        for name in wanted {
            let exact = !is_pattern(name) || listed.contains(name);
            let matches: Vec<&String> = if exact {
                vec![name]
            } else {
                let pattern = glob::Pattern::new(name).map_err(|_| HubError::Name {
                    what: "pattern",
                    name: name.clone(),
                    fix: "close its brackets",
                })?;
                let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
                listed.iter().filter(|file| pattern.matches_with(file, options)).collect()
            };
            if matches.is_empty() {
                return Err(self.no_match(name, &listed).into());
            }
            for file in matches {
                if !files.contains(file) {
                    files.push(file.clone());
                }
            }
        }
        Ok(files)
    }

    fn no_match(&self, pattern: &str, listed: &[String]) -> HubError {
        let mut found = listed.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        if listed.len() > 8 {
            found.push_str(", ...");
        }
        HubError::NoMatch {
            repository: self.repository.label(),
            commit: self.commit.clone(),
            pattern: pattern.into(),
            found,
        }
    }

    /// Path of `file` in the cache, downloaded first unless it is there. Processes that want the same file wait for
    /// one of them to download it; what an interrupted one has left is resumed.
    ///
    /// # Errors
    /// A name that leaves the repository; a file that is not there or not ours to see; bytes that are not those
    /// announced (discarded); a connection that stays broken (what has arrived is kept); no room; an error of
    /// `watch.keep_going`, passed on as it is.
    pub fn fetch(&self, file: &str, watch: Watch<'_>) -> Result<PathBuf> {
        check_file_name(file)?;
        let pointer = self.snapshot().join(file);
        if pointer.exists() {
            return Ok(pointer);
        }
        if self.hub.client.config.offline {
            let subject = Subject { repository: &self.repository, revision: &self.commit, file: Some(file) };
            let cache = self.hub.client.config.cache.clone();
            return Err(HubError::Offline { what: subject.label(), cache }.into());
        }
        download::into_cache(self, file, &pointer, watch)?;
        Ok(pointer)
    }

    /// Folder of the cache that shows the commit's files under their names.
    pub fn snapshot(&self) -> PathBuf {
        self.hub.cached(&self.repository, &self.commit).pointer_path(&self.commit)
    }
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

fn list_folder(root: &Path, folder: &Path, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list_folder(root, &path, names)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            names.push(name.into());
        }
    }
    Ok(())
}
