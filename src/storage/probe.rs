//! Whether processes share a file system, tried rather than believed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::disk::fresh_id;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A small file that one process leaves in a directory for others to find, who are told of it some other way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    path: PathBuf,
    /// What the file holds: another file system may have a file of that name, but not of that content.
    content: String,
}

impl Probe {
    /// Leaves a probe in `directory`, which must exist.
    pub fn leave(directory: &Path) -> io::Result<Self> {
        let path = std::path::absolute(directory)?.join(format!(".probe-{}", fresh_id()));
        let content = fresh_id();
        fs::write(&path, &content)?;
        Ok(Self { path, content })
    }

    /// Whether this process finds it, within `patience`: a network file system may show a new file late.
    pub fn is_seen(&self, patience: Duration) -> bool {
        let started = Instant::now();
        loop {
            let found = fs::read_to_string(&self.path).is_ok_and(|content| content == self.content);
            if found || started.elapsed() >= patience {
                return found;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Takes it away again; for the one who left it, once everybody has looked.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_seen_where_it_was_left_and_nowhere_else() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let probe = Probe::leave(here.path()).unwrap();
        let told: Probe = serde_json::from_str(&serde_json::to_string(&probe).unwrap()).unwrap();
        assert!(told.is_seen(Duration::ZERO));
        let elsewhere = Probe { path: there.path().join(probe.path.file_name().unwrap()), ..told };
        assert!(!elsewhere.is_seen(2 * PAUSE));
        fs::write(&elsewhere.path, "something else").unwrap();
        assert!(!elsewhere.is_seen(Duration::ZERO));
        probe.remove().unwrap();
        assert!(!probe.is_seen(Duration::ZERO));
        assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_that_shows_late_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let probe = Probe::leave(dir.path()).unwrap();
        let hidden = dir.path().join("hidden");
        fs::rename(&probe.path, &hidden).unwrap();
        let late = probe.clone();
        let reveal = thread::spawn(move || {
            thread::sleep(2 * PAUSE);
            fs::rename(hidden, &late.path).unwrap();
        });
        assert!(probe.is_seen(Duration::from_secs(20)));
        reveal.join().unwrap();
    }
}
