//! What can go wrong with the hub, each with its remedy.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A failure of the hub or of its cache. No message holds the token or an address with a signature.
#[derive(Debug, Error)]
pub enum HubError {
    /// A name that is refused before anything is asked.
    #[error("the {what} {name:?} cannot be on the hub; {fix}")]
    Name {
        /// Kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// How to name one.
        fix: &'static str,
    },
    /// An empty list of files.
    #[error(
        "hub.files is empty; name the files of the repository to read, or a pattern such as \"data/train-*.parquet\""
    )]
    NoFiles,
    /// A pattern that no file of the repository matches.
    #[error(
        "the {repository} at commit {commit} has no file that matches {pattern:?} (it has: {found}); correct hub.files"
    )]
    NoMatch {
        /// Label of the repository.
        repository: String,
        /// The commit.
        commit: String,
        /// The pattern.
        pattern: String,
        /// Some of the files there are.
        found: String,
    },
    /// The environment's settings cannot work.
    #[error("{0}")]
    Config(String),
    /// Offline, and not in the cache.
    #[error(
        "HF_HUB_OFFLINE is set and {what} is not in the cache {cache}; unset HF_HUB_OFFLINE, or bring the cache from a machine that has it"
    )]
    Offline {
        /// What was wanted.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// 401.
    #[error("the hub wants to know who asks for {what} (401); {fix}")]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Depends on whether a token was sent.
        fix: &'static str,
    },
    /// 403, or a repository behind a licence.
    #[error(
        "the hub refuses {what} (403); accept the licence at {page} and set HF_TOKEN to a token of that account that may read it"
    )]
    Forbidden {
        /// What was asked for.
        what: String,
        /// Page of the repository.
        page: String,
    },
    /// 404.
    #[error("the hub has no {what} (404); {fix}")]
    NotFound {
        /// What is not there.
        what: String,
        /// How to name it right.
        fix: &'static str,
    },
    /// No connection.
    #[error("cannot reach the hub at {endpoint} ({reason}); check the network and HF_ENDPOINT{cached}")]
    Unreachable {
        /// Address of the hub.
        endpoint: String,
        /// Why.
        reason: String,
        /// Advice to use the cached copy, where there is one.
        cached: String,
    },
    /// A status that stayed bad.
    #[error(
        "the hub answers {status} for {what} (tried {tries} times); try again later, or set HF_ENDPOINT to a mirror"
    )]
    Status {
        /// HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// Attempts made.
        tries: u32,
    },
    /// The connection broke or fell silent, again and again.
    #[error(
        "the connection to the hub broke while fetching {what} ({reason}; tried {tries} times); run again, what has arrived is kept and resumed"
    )]
    Broken {
        /// What was fetched.
        what: String,
        /// Why.
        reason: String,
        /// Attempts made.
        tries: u32,
    },
    /// An answer that makes no sense.
    #[error("the hub's answer for {what} {problem}; check HF_ENDPOINT, or try again later")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The bytes are not those announced.
    #[error(
        "{what} arrived with wrong bytes ({problem}) and was discarded; run again, or set HF_ENDPOINT to another mirror if it happens again"
    )]
    WrongBytes {
        /// What was fetched.
        what: String,
        /// Expected and found.
        problem: String,
    },
    /// The cache cannot be used.
    #[error(
        "cannot use the hub's cache at {path} ({source}); make it writable with room to spare, or set HF_HOME to another folder"
    )]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
