//! What can go wrong with the hub, each with its remedy.

use std::io;
use std::path::PathBuf;

use oss_config::error::UserError;

/// A failure of the hub or of its cache. No message holds the token or an address with a signature.
#[derive(Debug)]
pub enum HubError {
    /// The work was ended from outside; the error of `Watch::keep_going`.
    Interrupted(anyhow::Error),
    /// A name that is refused before anything is asked.
    Name {
        /// Kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// How to name one.
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
        /// Some of the files there are.
        found: String,
    },
    /// The environment's settings cannot work.
    Config {
        /// What is wrong with them.
        what: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// Offline, and not in the cache.
    Offline {
        /// What was wanted.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// 401.
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Depends on whether a token was sent.
        fix: &'static str,
    },
    /// 403, or a repository behind a licence.
    Forbidden {
        /// What was asked for.
        what: String,
        /// Page of the repository.
        page: String,
    },
    /// 404.
    NotFound {
        /// What is not there.
        what: String,
        /// How to name it right.
        fix: &'static str,
    },
    /// No connection.
    Unreachable {
        /// Address of the hub.
        endpoint: String,
        /// Why.
        reason: String,
        /// Advice to use the cached copy, where there is one.
        cached: String,
    },
    /// A status that stayed bad.
    Status {
        /// HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// Attempts made.
        tries: u32,
    },
    /// The connection broke or fell silent, again and again.
    Broken {
        /// What was fetched.
        what: String,
        /// Why.
        reason: String,
        /// Attempts made.
        tries: u32,
    },
    /// An answer that makes no sense.
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The bytes are not those announced.
    WrongBytes {
        /// What was fetched.
        what: String,
        /// Expected and found.
        problem: String,
    },
    /// The cache cannot be used.
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<HubError> for anyhow::Error {
    fn from(error: HubError) -> Self {
        let known = match error {
            HubError::Interrupted(error) => return error,
            HubError::Name { what, name, fix } => {
                UserError::failed(format!("the {what} {name:?} cannot be on the hub")).hint(fix)
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
            .hint("unset HF_HUB_OFFLINE, or bring the cache from a machine that has it"),
            HubError::Unauthorized { what, fix } => {
                UserError::failed(format!("the hub wants to know who asks for {what} (401)")).hint(fix)
            }
            HubError::Forbidden { what, page } => UserError::failed(format!("the hub refuses {what} (403)"))
                .hint(format!(
                    "accept the licence at {page} and set HF_TOKEN to a token of that account that \
                     may read it"
                )),
            HubError::NotFound { what, fix } => {
                UserError::failed(format!("the hub has no {what} (404)")).hint(fix)
            }
            HubError::Unreachable { endpoint, reason, cached } => {
                UserError::failed(format!("cannot reach the hub at {endpoint} ({reason})"))
                    .hint(format!("check the network and HF_ENDPOINT{cached}"))
            }
            HubError::Status { status, what, tries } => {
                UserError::failed(format!("the hub answers {status} for {what} (tried {tries} times)"))
                    .hint("try again later, or set HF_ENDPOINT to a mirror")
            }
            HubError::Broken { what, reason, tries } => UserError::failed(format!(
                "the connection to the hub broke while fetching {what} ({reason}; tried \
                 {tries} times)"
            ))
            .hint("run again, what has arrived is kept and resumed"),
            HubError::Answer { what, problem } => {
                UserError::failed(format!("the hub's answer for {what} {problem}"))
                    .hint("check HF_ENDPOINT, or try again later")
            }
            HubError::WrongBytes { what, problem } => {
                UserError::failed(format!("{what} arrived with wrong bytes ({problem}) and was discarded"))
                    .hint("run again, or set HF_ENDPOINT to another mirror if it happens again")
            }
            HubError::Cache { path, source } => {
                UserError::failed(format!("cannot use the hub's cache at {}", path.display()))
                    .hint("make it writable with room to spare, or set HF_HOME to another folder")
                    .because(source)
            }
        };
        known.into()
    }
}
