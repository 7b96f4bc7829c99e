//! The Hugging Face Hub: a revision pinned to its commit, and files downloaded once into the cache shared with other
//! clients, resumed after interruptions, and verified by size and digest.
//!
//! The URLs and the names of cache directories come from hf-hub. The transport is our own, because hf-hub does not
//! verify what arrives or that a resumed response continues at the right offset, gives up on a lock after five seconds,
//! and cannot be interrupted.

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

/// The Hub, or its cache when offline.
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

/// What the Hub reports about a revision.
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
    /// The Hub described by `config`; sends no request yet.
    ///
    /// # Errors
    /// If the endpoint or the token is invalid.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        let cache = Cache::new(config.cache.clone());
        Ok(Self { client: Client::new(config)?, cache })
    }

    /// Finds the commit of the repository's revision: the revision itself if it is a full commit, else according to the
    /// Hub, else (offline) according to the cache. `some_file` of the repository is requested if a mirror does not
    /// support queries about revisions.
    ///
    /// # Errors
    /// If the repository or revision does not exist or is not accessible, there is no connection, or the revision is
    /// not in the cache in offline mode.
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

    /// The directory of the cache for a revision that is a full commit, whether or not it exists.
    pub fn snapshot(&self, repository: &Repository) -> Option<PathBuf> {
        let commit = repository.pinned_commit()?;
        Some(self.cached(repository, &commit).pointer_path(&commit))
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
            // The listing of a large repository takes megabytes, well above the reader's own limit.
            let info = response.body_mut().with_config().limit(1 << 30).read_json();
            info.map_err(|error| match error {
                ureq::Error::Io(error) => http::transient(error.to_string()),
                ureq::Error::Timeout(_) => http::transient("timed out".into()),
                _ => {
                    let problem = "does not describe a repository".into();
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
    /// As for [`Hub::pin`].
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
            // The Hub's names become paths here.
            names.retain(|name| check_file_name(name).is_ok());
        }
        names.sort();
        Ok(names)
    }

    /// Replaces the patterns (`*`, `?`, `[...]`; `*` stays within a directory, `**` does not) in `wanted` by the
    /// matching files, sorted. Other names are passed through unchecked, and duplicates are removed.
    ///
    /// # Errors
    /// If a pattern is malformed or matches nothing; see also [`Self::list`].
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

    /// Path of `file` in the cache, downloaded first if necessary. If several processes want the same file, one
    /// downloads it and the others wait; an interrupted download is resumed.
    ///
    /// # Errors
    /// If the name leaves the repository, the file does not exist or is not accessible, the bytes do not match their
    /// digest (they are discarded), the connection stays broken (the partial download is kept), or the disk is full.
    /// Errors of `watch.keep_going` are passed through.
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

    /// Directory of the cache in which the commit's files have their own names.
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
