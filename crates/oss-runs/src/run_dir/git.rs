//! The git working tree of an experiment file: its commit, and the diff against it.
//!
//! Anything slow or missing is left out: a run never fails or waits because of its own description.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secrets::without_secrets;
use super::{RunDir, write_atomic};

/// A git working tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The checked-out commit, in hexadecimal.
    pub commit: String,
    /// Whether tracked files differ from it.
    pub dirty: bool,
    /// Digest of the diff of tracked files, which is stored in the run directory ([`RunDir::diff`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// The diff itself, until it is stored.
    #[serde(skip)]
    pub text: Option<String>,
}

/// Longer diffs are truncated.
const MAX_DIFF_BYTES: usize = 1 << 20;

/// Timeout for each git command.
const PATIENCE: Duration = Duration::from_secs(2);

/// Marks the end of a truncated diff.
const CUT: &str = "\n[truncated: the diff is longer than 1 MB]\n";

impl GitState {
    /// The state of the working tree around `dir`; `None` outside a repository or without `git`.
    pub fn of(dir: &Path) -> Option<Self> {
        let (commit, _) = git(dir, &["rev-parse", "HEAD"])?;
        let (changes, _) = git(dir, &["status", "--porcelain", "--untracked-files=no"])?;
        let dirty = !changes.trim().is_empty();
        let text = if dirty { difference(dir) } else { None };
        let diff = text.as_ref().map(|text| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned());
        Some(Self { commit: commit.trim().to_owned(), dirty, diff, text })
    }

    /// Writes the diff into `run`, unless an earlier attempt had the same one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, run: &RunDir) -> io::Result<()> {
        let (Some(digest), Some(text)) = (&self.diff, &self.text) else { return Ok(()) };
        let path = run.diff(digest);
        if path.exists() {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        write_atomic(&path, |out| out.write_all(text.as_bytes()))
    }
}

/// The diff of tracked files against the commit, at most [`MAX_DIFF_BYTES`], without secrets. Untracked files are left
/// out, because they may be anything.
fn difference(dir: &Path) -> Option<String> {
    let (text, is_whole) = git(dir, &["diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv"])?;
    let mut text = without_secrets(&text);
    if !is_whole {
        text.push_str(CUT);
    }
    Some(text)
}

/// The output of `git`, at most [`MAX_DIFF_BYTES`], and whether it is complete; `None` if it fails or times out.
fn git(dir: &Path, arguments: &[&str]) -> Option<(String, bool)> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(arguments)
        // Reading the state must not write the index of a repository that others work in.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let stdout = child.stdout.take()?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_DIFF_BYTES as u64 + 1).read_to_end(&mut bytes);
        // Nobody receives this after the timeout.
        let _ = send.send(read.map(|_| bytes));
    });
    let read = receive.recv_timeout(PATIENCE);
    let is_whole = matches!(&read, Ok(Ok(bytes)) if bytes.len() <= MAX_DIFF_BYTES);
    if !is_whole {
        // The output is too long, or git timed out.
        let _ = child.kill();
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    let mut bytes = read.ok()?.ok()?;
    if is_whole && !succeeded {
        return None;
    }
    bytes.truncate(MAX_DIFF_BYTES);
    Some((String::from_utf8_lossy(&bytes).into_owned(), is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with one commit of one file; `None` if there is no git.
    fn repository() -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "--quiet"])?;
        fs::write(dir.path().join("a"), "1\n").unwrap();
        git(dir.path(), &["add", "a"])?;
        git(dir.path(), &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "A file"])?;
        Some(dir)
    }

    #[test]
    fn the_state_follows_the_working_tree() {
        let outside = tempfile::tempdir().unwrap();
        assert_eq!(GitState::of(outside.path()), None);
        let Some(dir) = repository() else { return };
        let clean = GitState::of(dir.path()).unwrap();
        assert_eq!((clean.commit.len(), clean.dirty, &clean.diff), (40, false, &None));
        fs::write(dir.path().join("untracked"), "x").unwrap();
        assert_eq!(GitState::of(dir.path()), Some(clean), "untracked files are ignored");

        fs::write(dir.path().join("a"), "2\npassword = \"correct horse battery\"\n").unwrap();
        let dirty = GitState::of(dir.path()).unwrap();
        let run = RunDir::new(outside.path());
        dirty.keep(&run).unwrap();
        dirty.keep(&run).unwrap();
        let kept = fs::read_to_string(run.diff(dirty.diff.as_ref().unwrap())).unwrap();
        assert!(kept.contains("\n-1\n+2\n+password = \"[redacted]\"\n"), "{kept}");
    }

    #[test]
    fn a_huge_diff_is_truncated() {
        let Some(dir) = repository() else { return };
        fs::write(dir.path().join("a"), "line\n".repeat(1 << 20)).unwrap();
        let text = GitState::of(dir.path()).unwrap().text.unwrap();
        assert!(text.len() <= MAX_DIFF_BYTES + CUT.len() && text.ends_with(CUT), "{}", text.len());
    }
}
