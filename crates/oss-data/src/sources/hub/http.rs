//! Requests to the Hub: authentication, final and transient failures, retries.

use std::time::{Duration, Instant};

use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::names::Repository;
use super::{HubConfig, HubError};
use crate::sources::Watch;

/// Upper limit for a `Retry-After` header.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The subject of a request, for messages.
pub struct Subject<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Branch, tag or commit.
    pub revision: &'a str,
    /// A file of the repository.
    pub file: Option<&'a str>,
}

impl Subject<'_> {
    /// `file x of dataset a/b at main`.
    pub fn label(&self) -> String {
        let of = self.file.map_or(String::new(), |file| format!("file {file} of "));
        format!("{of}{} at {}", self.repository.label(), self.revision)
    }
}

/// Why an attempt failed.
pub enum Failure {
    /// Retrying would not help.
    Final(HubError),
    /// It may work next time, after this delay if the Hub gave one.
    Transient { kind: Transient, wait: Option<Duration> },
}

/// Transient failures.
pub enum Transient {
    /// An HTTP status.
    Status(u16),
    /// A broken connection or a timeout.
    Broken(String),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// Sends requests.
#[derive(Clone, Debug)]
pub struct Client {
    pub config: HubConfig,
    following: Agent,
    staying: Agent,
}

impl Client {
    /// A client for the Hub described by `config`; sends nothing yet.
    ///
    /// # Errors
    /// If the endpoint or the token is invalid.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        let host =
            config.endpoint.parse::<Uri>().ok().and_then(|uri| Some((uri.scheme_str()?.to_string(), uri)));
        if !host.is_some_and(|(scheme, _)| scheme == "https" || scheme == "http") {
            return Err(HubError::Config {
                what: "HF_ENDPOINT is not a URL",
                fix: "set it to a URL such as https://huggingface.co",
            });
        }
        if config.endpoint.contains('@') {
            return Err(HubError::Config {
                what: "HF_ENDPOINT contains a user name or password",
                fix: "remove it and set HF_TOKEN instead",
            });
        }
        if config
            .token
            .as_ref()
            .is_some_and(|token| !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(HubError::Config {
                what: "HF_TOKEN contains invalid characters",
                fix: "set it to the token only",
            });
        }
        let agent = |redirects: u32| {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(redirects)
                .max_redirects_will_error(false)
                // The token is sent to the Hub only, not to the storage it redirects to.
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .accept_encoding("identity")
                .user_agent(concat!("oss-run/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(config.timeout))
                .timeout_recv_response(Some(config.timeout))
                .timeout_per_read(Some(config.timeout))
                .build()
                .new_agent()
        };
        let (following, staying) = (agent(10), agent(0));
        Ok(Self { config, following, staying })
    }

    /// Sends a GET request, for the bytes of `range` if given, following redirects if `follow`.
    ///
    /// # Errors
    /// [`Failure::Final`] if no connection is possible, [`Failure::Transient`] if it broke.
    pub fn get(&self, url: &str, range: Option<&str>, follow: bool) -> Result<Response<Body>, Failure> {
        let agent = if follow { &self.following } else { &self.staying };
        let mut request = agent.get(url);
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        if let Some(token) = &self.config.token {
            request = request.header("Authorization", format!("Bearer {}", token.reveal()));
        }
        request.call().map_err(|error| self.connection_failure(&error))
    }

    fn connection_failure(&self, error: &ureq::Error) -> Failure {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let reason = match error {
            ureq::Error::Io(error) => match error.kind() {
                ConnectionRefused => "connection refused".to_string(),
                NotFound => "host not found".to_string(),
                _ => return transient(error.to_string()),
            },
            ureq::Error::HostNotFound => "host not found".to_string(),
            ureq::Error::ConnectionFailed => "no connection".to_string(),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => "no answer".to_string(),
            ureq::Error::Timeout(_) => return transient("timed out".into()),
            ureq::Error::Protocol(_) => return transient("broken HTTP".into()),
            // The text of these errors may contain an address with a signature.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_) => {
                "it redirects to an invalid address".to_string()
            }
            other => other.to_string(),
        };
        let endpoint = self.config.endpoint.clone();
        HubError::Unreachable { endpoint, reason, cached: String::new() }.into()
    }

    /// Turns an error status into a failure, and passes through a success.
    ///
    /// # Errors
    /// [`Failure::Transient`] for 408, 429 and 5xx, [`Failure::Final`] for the rest.
    pub fn accept(&self, response: Response<Body>, subject: &Subject<'_>) -> Result<Response<Body>, Failure> {
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(response);
        }
        if status == StatusCode::REQUEST_TIMEOUT
            || status == StatusCode::TOO_MANY_REQUESTS
            || status.is_server_error()
        {
            let wait = header(response.headers(), "retry-after").and_then(|text| text.parse().ok());
            return Err(Failure::Transient {
                kind: Transient::Status(status.as_u16()),
                wait: wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT)),
            });
        }
        Err(self.refusal(status, header(response.headers(), "x-error-code"), subject).into())
    }

    fn refusal(&self, status: StatusCode, code: Option<&str>, subject: &Subject<'_>) -> HubError {
        let what = subject.label();
        let repository = subject.repository.label();
        match (status.as_u16(), code) {
            (403, _) | (_, Some("GatedRepo")) => {
                let url = subject.repository.at("main").url();
                HubError::Forbidden { what, page: format!("{}/{url}", self.config.endpoint) }
            }
            (401, _) => HubError::Unauthorized {
                what,
                fix: if self.config.token.is_some() {
                    "the token in HF_TOKEN is not accepted: set HF_TOKEN to a valid token with access, and check \
                     the name"
                } else {
                    "check the name; if the repository is private or gated, set HF_TOKEN to a \
                     token with access"
                },
            },
            (404, Some("RevisionNotFound")) => HubError::NotFound {
                what: format!("revision {} of {repository}", subject.revision),
                fix: "set revision to one of its branches, tags or commits",
            },
            (404, Some("EntryNotFound")) if subject.file.is_some() => {
                HubError::NotFound { what, fix: "correct the file's name" }
            }
            (404, Some("RepoNotFound")) => HubError::NotFound {
                what: repository,
                fix: "correct the repository's name, or set HF_TOKEN if it is private",
            },
            (404, _) => HubError::NotFound {
                what,
                fix: if subject.file.is_some() {
                    "correct the names of the file, the revision and the repository"
                } else {
                    "correct the names of the repository and the revision, or set HF_TOKEN if it is private"
                },
            },
            (status, _) => HubError::Status { status, what, tries: 1 },
        }
    }

    /// Runs `attempt` until it succeeds, fails permanently, or has used up its retries. `attempt` sets its argument
    /// when it made progress, which restarts the count.
    ///
    /// # Errors
    /// The permanent failure; the last transient failure; an error of `watch.keep_going` while waiting.
    pub fn persist<T>(
        &self,
        subject: &Subject<'_>,
        watch: Watch<'_>,
        mut attempt: impl FnMut(&mut bool) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut tries = 0;
        loop {
            check_watch(watch)?;
            let mut gained = false;
            let (kind, wait) = match attempt(&mut gained) {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient { kind, wait }) => (kind, wait),
            };
            tries = if gained { 1 } else { tries + 1 };
            if tries > self.config.retries {
                let what = subject.label();
                return Err(match kind {
                    Transient::Status(status) => HubError::Status { status, what, tries },
                    Transient::Broken(reason) => HubError::Broken { what, reason, tries },
                });
            }
            let doubled = self.config.backoff.saturating_mul(1 << (tries - 1).min(6));
            pause(wait.unwrap_or(doubled.min(LONGEST_WAIT)), watch)?;
        }
    }
}

/// A transient failure of the connection.
pub fn transient(reason: String) -> Failure {
    Failure::Transient { kind: Transient::Broken(reason), wait: None }
}

/// Returns early if `watch` says that the work should stop.
pub fn check_watch(watch: Watch<'_>) -> Result<(), HubError> {
    (watch.keep_going)().map_err(HubError::Interrupted)
}

/// Sleeps in short intervals, so that a stop request is noticed.
pub fn pause(wait: Duration, watch: Watch<'_>) -> Result<(), HubError> {
    let end = Instant::now() + wait;
    loop {
        check_watch(watch)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

/// The value of a header, if it is plain text.
pub fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
