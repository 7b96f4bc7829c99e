//! What the hub announces of a file before it sends it: the commit, the size and the digest.

use ureq::http::{HeaderMap, StatusCode};

use super::HubError;
use super::http::{Client, Subject, header};
use super::names::{Repository, encode_path};
use crate::sources::Watch;

/// What the hub announces of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Commit that the revision stands for.
    pub commit: Option<String>,
    /// Entity tag: the SHA-256 of a large file, git's blob id of a small one; the name of its blob in the cache.
    pub etag: String,
    /// Size.
    pub bytes: Option<u64>,
}

/// Address of a file.
pub fn address(client: &Client, repository: &Repository, revision: &str, file: &str) -> String {
    let repo = repository.at(revision);
    format!("{}/{}/resolve/{}/{}", client.config.endpoint, repo.url(), repo.url_revision(), encode_path(file))
}

/// Asks for one byte of the file and reads the answer's headers. Redirects within the hub are followed; one to another
/// host, where large files lie, is not, because the hub's own answer carries what is needed.
///
/// # Errors
/// A file that is not there or not ours to see; an answer without an entity tag; as [`Client::persist`].
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
        let mut found = Announced::default();
        for _ in 0..10 {
            let response = client.get(&url, Some("bytes=0-0"), false)?;
            // The one byte of an empty file cannot be had.
            let empty = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
            let response = if empty { response } else { client.accept(response, &subject)? };
            found.read(response.headers(), response.status());
            if !response.status().is_redirection() {
                return found.finish().ok_or_else(|| wrong("names no digest (ETag)").into());
            }
            let location = header(response.headers(), "location").unwrap_or_default();
            match same_host(&url, location) {
                Some(next) if found.linked_etag.is_none() => url = next,
                _ => return found.finish().ok_or_else(|| wrong("names no digest (ETag)").into()),
            }
        }
        Err(wrong("redirects without end").into())
    })
}

/// Where `location` leads, if that is the host of `url`.
fn same_host(url: &str, location: &str) -> Option<String> {
    let start = url.find("://")? + 3;
    let host_end = url[start..].find('/').map_or(url.len(), |slash| start + slash);
    let origin = &url[..host_end];
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(format!("{origin}{location}"));
    }
    location.strip_prefix(origin).filter(|rest| rest.starts_with('/')).map(|rest| format!("{origin}{rest}"))
}

/// Headers gathered along the redirects.
#[derive(Default)]
struct Announced {
    commit: Option<String>,
    linked_etag: Option<String>,
    linked_bytes: Option<u64>,
    etag: Option<String>,
    bytes: Option<u64>,
}

impl Announced {
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

/// The tag without its quotes and its mark of weakness, if it can name a file.
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
    fn tags_and_redirects_are_read_with_care() {
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
