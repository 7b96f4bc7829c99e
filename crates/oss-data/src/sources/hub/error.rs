//! Errors of the Hub, each with a hint.

use std::io;
use std::path::PathBuf;

use oss_config::error::UserError;

/// A failure of the Hub or of its cache. No message contains the token or an address with a signature.
#[derive(Debug)]
pub enum HubError {
    /// The work was stopped from outside; the error of `Watch::keep_going`.
    Interrupted(anyhow::Error),
    /// A name that is rejected before any request is made.
    Name {
        /// Kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// How to write a valid name.
        fix: &'static str,
    },
    /// An empty list of files.
    NoFiles,
    /// A pattern that no file of the repository matches.
    NoMatch {
        /// Label of the repository.
        repository: String,
        /// The commit.
        commit: String,
        /// The pattern.
        pattern: String,
        /// Some of the existing files.
        found: String,
    },
    /// Invalid settings in the environment.
    Config {
        /// What is wrong with them.
        what: &'static str,
        /// How to fix them.
        fix: &'static str,
    },
    /// Offline, and not in the cache.
    Offline {
        /// What was requested.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// Status 401.
    Unauthorized {
        /// What was requested.
        what: String,
        /// Depends on whether a token was sent.
        fix: &'static str,
    },
    /// Status 403, or a gated repository.
    Forbidden {
        /// What was requested.
        what: String,
        /// Page of the repository.
        page: String,
    },
    /// Status 404.
    NotFound {
        /// What was not found.
        what: String,
        /// How to correct the name.
        fix: &'static str,
    },
    /// No connection.
    Unreachable {
        /// Address of the Hub.
        endpoint: String,
        /// The cause.
        reason: String,
        /// Advice to use the cached copy, if there is one.
        cached: String,
    },
    /// A bad status after all retries.
    Status {
        /// HTTP status.
        status: u16,
        /// What was requested.
        what: String,
        /// Number of attempts.
        tries: u32,
    },
    /// The connection broke or timed out repeatedly.
    Broken {
        /// What was requested.
        what: String,
        /// The cause.
        reason: String,
        /// Number of attempts.
        tries: u32,
    },
    /// An invalid response.
    Answer {
        /// What was requested.
        what: String,
        /// What is wrong with the response.
        problem: String,
    },
    /// The downloaded bytes do not match the announced digest.
    WrongBytes {
        /// What was downloaded.
        what: String,
        /// Expected and actual digest.
        problem: String,
    },
    /// The cache cannot be used.
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<HubError> for anyhow::Error {
    fn from(error: HubError) -> Self {
        let known = match error {
            HubError::Interrupted(error) => return error,
            HubError::Name { what, name, fix } => {
                UserError::failed(format!("invalid {what} {name:?}")).hint(fix)
            }
            HubError::NoFiles => UserError::failed("hub.files is empty").hint(
                "name the files of the repository to read, or a pattern such as \
                 \"data/train-*.parquet\"",
            ),
            HubError::NoMatch { repository, commit, pattern, found } => UserError::failed(format!(
                "the {repository} at commit {commit} has no file that matches {pattern:?} (it \
                 has: {found})"
            ))
            .hint("correct hub.files"),
            HubError::Config { what, fix } => UserError::failed(what).hint(fix),
            HubError::Offline { what, cache } => UserError::failed(format!(
                "HF_HUB_OFFLINE is set and {what} is not in the cache {}",
                cache.display()
            ))
            .hint("unset HF_HUB_OFFLINE, or copy the cache from a machine that has it"),
            HubError::Unauthorized { what, fix } => {
                UserError::failed(format!("the Hub requires authentication for {what} (401)")).hint(fix)
            }
            HubError::Forbidden { what, page } => {
                UserError::failed(format!("the Hub denies access to {what} (403)")).hint(format!(
                    "accept the license at {page} and set HF_TOKEN to a token of that account that \
                     can read it"
                ))
            }
            HubError::NotFound { what, fix } => {
                UserError::failed(format!("the Hub has no {what} (404)")).hint(fix)
            }
            HubError::Unreachable { endpoint, reason, cached } => {
                UserError::failed(format!("cannot reach the Hub at {endpoint} ({reason})"))
                    .hint(format!("check the network and HF_ENDPOINT{cached}"))
            }
            HubError::Status { status, what, tries } => UserError::failed(format!(
                "the Hub returned status {status} for {what} (tried {tries} times)"
            ))
            .hint("try again later, or set HF_ENDPOINT to a mirror"),
            HubError::Broken { what, reason, tries } => UserError::failed(format!(
                "the connection to the Hub broke while downloading {what} ({reason}; tried \
                 {tries} times)"
            ))
            .hint("run again to resume the download"),
            HubError::Answer { what, problem } => {
                UserError::failed(format!("the Hub's response for {what} {problem}"))
                    .hint("check HF_ENDPOINT, or try again later")
            }
            HubError::WrongBytes { what, problem } => {
                UserError::failed(format!("{what} was corrupted in transit ({problem}) and was discarded"))
                    .hint("run again; if it happens again, set HF_ENDPOINT to another mirror")
            }
            HubError::Cache { path, source } => {
                UserError::failed(format!("cannot use the Hub cache at {}", path.display()))
                    .hint("check its permissions and free space, or set HF_HOME to another directory")
                    .because(source)
            }
        };
        known.into()
    }
}
