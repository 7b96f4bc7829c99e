//! What the Hub announces about a file before it sends it: the commit, the size and the digest.

use ureq::http::{HeaderMap, StatusCode};

use super::HubError;
use super::http::{Client, Subject, header};
use super::names::{Repository, encode_path};
use crate::sources::Watch;

/// What the Hub announces about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Commit that the revision refers to.
    pub commit: Option<String>,
    /// Entity tag: the SHA-256 of a large file, or the git blob ID of a small one. It names the blob in the cache.
    pub etag: String,
    /// Size in bytes.
    pub bytes: Option<u64>,
}

/// URL of a file.
pub fn address(client: &Client, repository: &Repository, revision: &str, file: &str) -> String {
    let repo = repository.at(revision);
    format!("{}/{}/resolve/{}/{}", client.config.endpoint, repo.url(), repo.url_revision(), encode_path(file))
}

/// Requests one byte of the file and reads the response headers. Redirects within the Hub are followed. One to another
/// host, where large files are stored, is not, because the Hub's own response has all the information.
///
/// # Errors
/// If the file does not exist or is not accessible, or the response has no entity tag; see also [`Client::persist`].
pub fn ask(
    client: &Client,
    repository: &Repository,
    revision: &str,
    file: &str,
    watch: Watch<'_>,
) -> Result<Metadata, HubError> {
    let subject = Subject { repository, revision, file: Some(file) };
    let wrong = |problem: &str| HubError::Answer { what: subject.label(), problem: problem.into() };
    client.persist(&subject, watch, |_| {
        let mut url = address(client, repository, revision, file);
        let mut found = RedirectHeaders::default();
        for _ in 0..10 {
            let response = client.get(&url, Some("bytes=0-0"), false)?;
            // An empty file does not have that byte.
            let empty = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
            let response = if empty { response } else { client.accept(response, &subject)? };
            found.read(response.headers(), response.status());
            if !response.status().is_redirection() {
                return found.finish().ok_or_else(|| wrong("has no digest (ETag)").into());
            }
            let location = header(response.headers(), "location").unwrap_or_default();
            match same_host(&url, location) {
                Some(next) if found.linked_etag.is_none() => url = next,
                _ => return found.finish().ok_or_else(|| wrong("has no digest (ETag)").into()),
            }
        }
        Err(wrong("has too many redirects").into())
    })
}

/// The target of `location`, if it has the same host as `url`.
fn same_host(url: &str, location: &str) -> Option<String> {
    let start = url.find("://")? + 3;
    let host_end = url[start..].find('/').map_or(url.len(), |slash| start + slash);
    let origin = &url[..host_end];
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(format!("{origin}{location}"));
    }
    location.strip_prefix(origin).filter(|rest| rest.starts_with('/')).map(|rest| format!("{origin}{rest}"))
}

/// Headers collected along the redirects.
#[derive(Default)]
struct RedirectHeaders {
    commit: Option<String>,
    linked_etag: Option<String>,
    linked_bytes: Option<u64>,
    etag: Option<String>,
    bytes: Option<u64>,
}

impl RedirectHeaders {
    fn read(&mut self, headers: &HeaderMap, status: StatusCode) {
        let text = |name| header(headers, name).map(str::to_string);
        let number = |name| header(headers, name).and_then(|text| text.parse().ok());
        self.commit = text("x-repo-commit").or(self.commit.take());
        self.linked_etag = text("x-linked-etag").and_then(|tag| plain(&tag)).or(self.linked_etag.take());
        self.linked_bytes = number("x-linked-size").or(self.linked_bytes);
        self.etag = text("etag").and_then(|tag| plain(&tag)).or(self.etag.take());
        let total = || header(headers, "content-range")?.rsplit('/').next()?.parse().ok();
        match status {
            StatusCode::OK => self.bytes = number("content-length"),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => self.bytes = total(),
            _ => {}
        }
    }

    fn finish(self) -> Option<Metadata> {
        let etag = self.linked_etag.or(self.etag)?;
        Some(Metadata { commit: self.commit, etag, bytes: self.linked_bytes.or(self.bytes) })
    }
}

/// The tag without its quotes and weakness prefix, if it is a valid file name.
fn plain(tag: &str) -> Option<String> {
    let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
    let sound = !tag.is_empty()
        && tag.len() <= 128
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    sound.then(|| tag.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_redirects_are_validated() {
        assert_eq!(plain("W/\"ab-1\"").as_deref(), Some("ab-1"));
        assert_eq!(plain("\"../../x\""), None);
        assert_eq!(plain("\"\""), None);
        let url = "http://hub:80/datasets/a/b/resolve/main/f";
        assert_eq!(same_host(url, "/api/f?x=1").as_deref(), Some("http://hub:80/api/f?x=1"));
        assert_eq!(same_host(url, "http://hub:80/f").as_deref(), Some("http://hub:80/f"));
        assert_eq!(same_host(url, "http://hub:8080/f"), None);
        assert_eq!(same_host(url, "//evil/f"), None);
        assert_eq!(same_host(url, "https://cdn/f"), None);
    }
}
