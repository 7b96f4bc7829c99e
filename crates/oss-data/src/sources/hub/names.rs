//! Names of repositories, revisions and files, checked before any request or write, because they become parts of URLs
//! and of paths in the cache.

use hf_hub::{Repo, RepoType};

use super::HubError;

/// A repository at a revision, with names that are safe in URLs and paths.
#[derive(Clone, Debug)]
pub struct Repository {
    name: String,
    revision: String,
    is_model: bool,
}

impl Repository {
    /// A dataset repository.
    ///
    /// # Errors
    /// If the name or revision is invalid.
    pub fn dataset(name: &str, revision: &str) -> Result<Self, HubError> {
        Self::new(name, revision, false)
    }

    /// A model repository.
    ///
    /// # Errors
    /// As for [`Self::dataset`].
    pub fn model(name: &str, revision: &str) -> Result<Self, HubError> {
        Self::new(name, revision, true)
    }

    fn new(name: &str, revision: &str, is_model: bool) -> Result<Self, HubError> {
        let refused = |what: &'static str, name: &str, fix: &'static str| {
            Err(HubError::Name { what, name: name.into(), fix })
        };
        let parts: Vec<_> = name.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && !part.contains("..")
                && !part.starts_with(['.', '-'])
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if parts.len() > 2 || !parts.iter().all(plain) {
            return refused("repository", name, "write it as \"owner/name\"");
        }
        let safe = |part: &str| {
            !part.is_empty()
                && part != "."
                && !part.contains("..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte))
        };
        if !revision.split('/').all(safe) {
            return refused("revision", revision, "use a branch, tag or commit");
        }
        Ok(Self { name: name.into(), revision: revision.into(), is_model })
    }

    /// `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The requested revision.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The commit, if the revision is a full one.
    pub(super) fn pinned_commit(&self) -> Option<String> {
        is_commit(&self.revision).then(|| self.revision.to_ascii_lowercase())
    }

    /// `dataset owner/name`, for messages.
    pub(super) fn label(&self) -> String {
        format!("{} {}", if self.is_model { "model" } else { "dataset" }, self.name)
    }

    /// The same repository at `revision`, in the types of the Hub client.
    pub(super) fn at(&self, revision: &str) -> Repo {
        let kind = if self.is_model { RepoType::Model } else { RepoType::Dataset };
        Repo::with_revision(self.name.clone(), kind, revision.into())
    }
}

/// Whether `text` is a full commit ID.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Checks that `name` is a file inside a repository.
///
/// # Errors
/// If the name is empty or absolute, has an empty, `.` or `..` component, a backslash or a control character.
pub fn check_file_name(name: &str) -> Result<(), HubError> {
    let sound = !name.contains('\\')
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if sound {
        return Ok(());
    }
    let fix = "use a path inside the repository, without \"..\", a leading \"/\" or control characters";
    Err(HubError::Name { what: "file", name: name.into(), fix })
}

/// Applies [`check_file_name`] to each name of a list, which must not be empty.
///
/// # Errors
/// The first invalid name, or an empty list.
pub fn check_file_names(names: &[String]) -> Result<(), HubError> {
    if names.is_empty() {
        return Err(HubError::NoFiles);
    }
    names.iter().try_for_each(|name| check_file_name(name))
}

/// `name` percent-encoded for a URL, except for letters, digits and `-._~/`.
pub(super) fn encode_path(name: &str) -> String {
    name.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_repository_are_refused() {
        for name in
            ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a\0b", "a\\..\\b", "a/", "a\nb"]
        {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
        for name in ["data/train-00000-of-00004.parquet", "a b.txt", "..a/b..", "é.jsonl"] {
            assert!(check_file_name(name).is_ok(), "{name:?}");
        }
        for name in ["", "a/b/c", "../b", "a/..", "/a", "a/b?c", "a/b\0", "a b/c", ".a/b", "-a/b"] {
            assert!(Repository::dataset(name, "main").is_err(), "{name:?}");
        }
        for revision in ["", "..", "a/../b", "/main", "main/", "a b", "a\0", "a?b", "refs/.."] {
            assert!(Repository::dataset("a/b", revision).is_err(), "{revision:?}");
        }
        for revision in ["main", "refs/pr/1", "v1.0", "refs/convert/parquet"] {
            assert!(Repository::dataset("a/b", revision).is_ok(), "{revision:?}");
        }
        assert_eq!(encode_path("a b/ü#.txt"), "a%20b/%C3%BC%23.txt");
    }
}
