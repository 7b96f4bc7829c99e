//! Downloads a file into the cache: locked, resumable, and verified before it is visible under its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use sha1::Digest;
use ureq::http::StatusCode;

use super::http::{self, Client, Failure, Subject, header, transient};
use super::metadata::{self, Metadata};
use super::{HubError, Pinned};
use crate::sources::{Activity, ActivityKind, Watch};
use oss_runs::storage::FileLock;

const BUFFER_BYTES: usize = 1 << 18;

/// Downloads `file` of the pinned repository as a blob and links `pointer` to it.
pub fn into_cache(pinned: &Pinned, file: &str, pointer: &Path, watch: Watch<'_>) -> Result<()> {
    let Pinned { hub, repository, commit } = pinned;
    let subject = Subject { repository, revision: commit, file: Some(file) };
    let announced = metadata::ask(&hub.client, repository, commit, file, watch)?;
    if announced.commit.as_ref().is_some_and(|answered| !answered.eq_ignore_ascii_case(commit)) {
        let problem = "is about another commit".into();
        return Err(HubError::Answer { what: subject.label(), problem }.into());
    }
    let blob = hub.cached(repository, commit).blob_path(&announced.etag);
    make_folder_of(&blob)?;
    make_folder_of(pointer)?;
    let folder_name = repository.at("main").folder_name();
    let lock = hub.cache.path().join(".locks").join(folder_name).join(format!("{}.lock", announced.etag));
    let _held = lock_file(&lock, watch)?;
    if pointer.exists() {
        return Ok(());
    }
    let whole = |found: &fs::Metadata| announced.bytes.is_none_or(|bytes| bytes == found.len());
    if !fs::metadata(&blob).is_ok_and(|found| whole(&found)) {
        let url = metadata::address(&hub.client, repository, commit, file);
        fetch_blob(&hub.client, &subject, &url, &announced, &blob, watch)?;
    }
    Ok(link(&blob, pointer).map_err(cache_error(pointer))?)
}

fn fetch_blob(
    client: &Client,
    subject: &Subject<'_>,
    url: &str,
    announced: &Metadata,
    blob: &Path,
    watch: Watch<'_>,
) -> Result<()> {
    // Named as by other clients, so that each can resume the other's downloads.
    let partial = blob.with_file_name(format!("{}.incomplete", announced.etag));
    let mut incoming = Incoming::open(&partial, announced).map_err(cache_error(&partial))?;
    let resumed = incoming.done_bytes > 0;
    client.persist(subject, watch, |gained| {
        if announced.bytes == Some(incoming.done_bytes) {
            return Ok(());
        }
        receive(client, subject, url, &mut incoming, gained, watch)
    })?;
    if let Err(problem) = incoming.check(announced) {
        drop(incoming);
        fs::remove_file(&partial).map_err(cache_error(&partial))?;
        if resumed {
            // The problem may be in what an earlier attempt left; starting over rules that out.
            tracing::warn!(
                "{}: the partial download does not match; restarting the download",
                subject.label()
            );
            return fetch_blob(client, subject, url, announced, blob, watch);
        }
        return Err(HubError::WrongBytes { what: subject.label(), problem }.into());
    }
    incoming.file.sync_all().map_err(cache_error(&partial))?;
    fs::rename(&partial, blob).map_err(cache_error(blob))?;
    Ok(())
}

/// One request for the missing bytes, which are appended as they arrive.
fn receive(
    client: &Client,
    subject: &Subject<'_>,
    url: &str,
    incoming: &mut Incoming,
    gained: &mut bool,
    watch: Watch<'_>,
) -> Result<(), Failure> {
    let from = incoming.done_bytes;
    let range = (from > 0).then(|| format!("bytes={from}-"));
    let response = client.get(url, range.as_deref(), true)?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        incoming.restart()?;
        return Err(transient("the Hub cannot resume at this offset".into()));
    }
    let response = client.accept(response, subject)?;
    let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
        && header(response.headers(), "content-range")
            .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok())
            == Some(from);
    if response.status().is_redirection() {
        let problem = "has too many redirects".into();
        return Err(HubError::Answer { what: subject.label(), problem }.into());
    }
    if from > 0 && !goes_on {
        incoming.restart()?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            return Err(transient("the Hub resumed at a different offset".into()));
        }
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; BUFFER_BYTES];
    let file = subject.file.unwrap_or_default();
    loop {
        http::check_watch(watch)?;
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(transient(format!("after {} bytes: {error}", incoming.done_bytes))),
        };
        incoming.append(&buffer[..read])?;
        *gained = true;
        let done_bytes = incoming.done_bytes;
        let total_bytes = incoming.total_bytes.unwrap_or(done_bytes);
        if done_bytes > total_bytes {
            break;
        }
        (watch.progress)(Activity { kind: ActivityKind::Downloading, file, done_bytes, total_bytes });
    }
    match incoming.total_bytes {
        Some(total) if incoming.done_bytes < total => {
            Err(transient(format!("{} of {total} bytes arrived", incoming.done_bytes)))
        }
        _ => Ok(()),
    }
}

/// A partial blob that is hashed as it grows.
struct Incoming {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    done_bytes: u64,
    total_bytes: Option<u64>,
}

impl Incoming {
    /// Opens and hashes an existing file, or creates a new one.
    fn open(path: &Path, announced: &Metadata) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut hasher = Hasher::of(announced);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done_bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            done_bytes += read as u64;
        }
        let mut incoming = Self { path: path.into(), file, hasher, done_bytes, total_bytes: announced.bytes };
        if announced.bytes.is_some_and(|bytes| done_bytes > bytes) {
            incoming.empty()?;
        }
        Ok(incoming)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(cache_error(&self.path))?;
        self.hasher.update(bytes);
        self.done_bytes += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.empty().map_err(cache_error(&self.path))
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hasher.restart();
        self.done_bytes = 0;
        Ok(())
    }

    fn check(&self, announced: &Metadata) -> Result<(), String> {
        if let Some(bytes) = announced.bytes.filter(|bytes| *bytes != self.done_bytes) {
            return Err(format!("got {} bytes instead of {bytes}", self.done_bytes));
        }
        match self.hasher.finish(self.done_bytes) {
            Some((kind, found)) if !found.eq_ignore_ascii_case(&announced.etag) => {
                Err(format!("got {kind} {found} instead of {}", announced.etag))
            }
            _ => Ok(()),
        }
    }
}

/// The digest that an entity tag represents.
enum Hasher {
    /// 64 hexadecimal digits: SHA-256 of the bytes.
    Sha256(sha2::Sha256),
    /// 40 digits: a git blob ID, the SHA-1 of a header with the size, followed by the bytes.
    GitBlob { bytes: Option<u64>, sha1: sha1::Sha1 },
    /// Some other tag, which says nothing about the bytes.
    Unknown,
}

impl Hasher {
    fn of(announced: &Metadata) -> Self {
        let hexadecimal = announced.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        match announced.etag.len() {
            64 if hexadecimal => Self::Sha256(sha2::Sha256::new()),
            40 if hexadecimal => {
                let bytes = announced.bytes;
                let mut hasher = Self::GitBlob { bytes, sha1: sha1::Sha1::new() };
                hasher.restart();
                hasher
            }
            _ => Self::Unknown,
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Sha256(sha) => *sha = sha2::Sha256::new(),
            Self::GitBlob { bytes, sha1 } => {
                *sha1 = sha1::Sha1::new();
                if let Some(bytes) = bytes {
                    sha1.update(format!("blob {bytes}\0"));
                }
            }
            Self::Unknown => {}
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha) => sha.update(bytes),
            Self::GitBlob { sha1, .. } => sha1.update(bytes),
            Self::Unknown => {}
        }
    }

    /// Name and hexadecimal value, if the tag is a digest.
    fn finish(&self, done_bytes: u64) -> Option<(&'static str, String)> {
        match self {
            Self::Sha256(sha) => Some(("SHA-256", hexadecimal(&sha.clone().finalize()))),
            Self::GitBlob { bytes, sha1 } if *bytes == Some(done_bytes) => {
                Some(("git blob ID", hexadecimal(&sha1.clone().finalize())))
            }
            _ => None,
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for the lock as long as necessary.
fn lock_file(path: &Path, watch: Watch<'_>) -> Result<FileLock> {
    make_folder_of(path)?;
    loop {
        if let Some(lock) = FileLock::try_exclusive(path).map_err(cache_error(path))? {
            return Ok(lock);
        }
        http::pause(Duration::from_millis(200), watch)?;
    }
}

/// Makes `pointer` a relative link to `blob`, as the cache layout requires, so that the cache can be moved.
fn link(blob: &Path, pointer: &Path) -> io::Result<()> {
    let cache = blob.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let inside = pointer.parent().and_then(|folder| folder.strip_prefix(cache).ok());
    let target = match inside {
        Some(inside) => {
            let up = inside.components().filter(|part| matches!(part, Component::Normal(_))).map(|_| "..");
            up.collect::<PathBuf>().join("blobs").join(blob.file_name().unwrap_or_default())
        }
        None => blob.to_path_buf(),
    };
    // There may be a dangling link to a blob that was removed.
    if pointer.symlink_metadata().is_ok() {
        fs::remove_file(pointer)?;
    }
    std::os::unix::fs::symlink(target, pointer)
}

fn make_folder_of(path: &Path) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(cache_error(folder))
}

fn cache_error(path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_path_buf();
    move |source| HubError::Cache { path, source }
}
