//! `metrics.jsonl`: one JSON object per line, with `step` first and then the fields in the order in which they were
//! given.
//!
//! A number that JSON cannot represent (NaN, infinity) is `null`. A process killed in the middle of a line leaves a
//! torn tail, which readers skip and the next [`MetricsLog::open`] removes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::run_dir::write_atomic;
use oss_config::error::{UserError, user_errors};

/// The metrics of one run, open for writing. Only the holder of the run's write lock may open it.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

/// One line of a metrics file.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsLine {
    /// Number of optimizer steps taken when the line was written.
    pub step: u64,
    /// The other fields of the line.
    pub fields: Map<String, Value>,
}

/// Why metrics cannot be read or written.
#[derive(Debug)]
pub enum MetricsError {
    /// A line other than the last is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
    },
    /// The file cannot be read or written.
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<MetricsError> for UserError {
    fn from(error: MetricsError) -> Self {
        match error {
            MetricsError::Damaged { path, line } => {
                Self::failed(format!("{}:{line} is damaged (not a JSON object with a step)", path.display()))
                    .hint("delete that line")
            }
            MetricsError::Io { action, path, source } => {
                Self::failed(format!("cannot {action} {}", path.display()))
                    .hint("check free disk space and permissions")
                    .because(source)
            }
        }
    }
}

user_errors!(MetricsError);

impl MetricsLog {
    /// Opens the log of a run that resumes from the checkpoint of step `resume_at`, or starts from nothing. Atomically
    /// removes the lines of later steps, which will be written again.
    ///
    /// # Errors
    /// If the file cannot be read or written. A damaged line is reported and removed, so that it does not keep a run
    /// from resuming.
    pub fn open(path: &Path, resume_at: Option<u64>) -> Result<Self, MetricsError> {
        let keep = |step| resume_at.is_some_and(|last| step <= last);
        let failed = |action| move |source| MetricsError::Io { action, path: path.to_owned(), source };
        let old = read_or_empty(path).map_err(failed("read"))?;
        let mut kept = Vec::with_capacity(old.len());
        for (number, (line, ended)) in lines(&old).enumerate() {
            match parse(line) {
                Some(MetricsLine { step, .. }) if keep(step) => {
                    // The original bytes: a number must not change because it was read.
                    kept.extend_from_slice(line);
                    kept.push(b'\n');
                }
                Some(_) => {}
                None if !ended => {}
                None => tracing::warn!("{}:{} is damaged; dropping the line", path.display(), number + 1),
            }
        }
        if kept != old || !path.exists() {
            write_atomic(path, |out| out.write_all(&kept)).map_err(failed("write"))?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(failed("write"))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one line, which is visible to readers when this returns. A field named `step` is ignored in favor of the
    /// argument.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, step: u64, fields: &Map<String, Value>) -> Result<(), MetricsError> {
        let mut object = Map::with_capacity(fields.len() + 1);
        object.insert("step".into(), step.into());
        object.extend(
            fields
                .iter()
                .filter(|(name, _)| *name != "step")
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        // The line is written in one call, so a reader or a kill sees it torn only if the system tears it.
        let line = format!("{}\n", Value::Object(object));
        self.file.write_all(line.as_bytes()).map_err(|source| self.failed(source))
    }

    /// Syncs everything appended so far to disk. A checkpoint calls this before it commits, so that no committed step
    /// can lack its line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn sync(&mut self) -> Result<(), MetricsError> {
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    /// Every complete line of the file at `path`; empty if there is no such file. The run may be in progress.
    ///
    /// # Errors
    /// If the file cannot be read, or a line before the torn last one is damaged.
    pub fn read(path: &Path) -> Result<Vec<MetricsLine>, MetricsError> {
        let text = read_or_empty(path).map_err(|source| MetricsError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let mut read = Vec::new();
        for (number, (line, ended)) in lines(&text).enumerate() {
            match parse(line) {
                Some(line) => read.push(line),
                None if !ended => {}
                None => return Err(MetricsError::Damaged { path: path.to_owned(), line: number + 1 }),
            }
        }
        Ok(read)
    }

    fn failed(&self, source: io::Error) -> MetricsError {
        MetricsError::Io { action: "write", path: self.path.clone(), source }
    }
}

fn read_or_empty(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// The lines of `text` without their line feeds, and whether each had one.
pub(super) fn lines(text: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], bool)> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| match line.strip_suffix(b"\n") {
        Some(line) => (line, true),
        None => (line, false),
    })
}

pub(super) fn parse(line: &[u8]) -> Option<MetricsLine> {
    let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let step = fields.shift_remove("step")?.as_u64()?;
    Some(MetricsLine { step, fields })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use oss_config::error::ErrorReport;

    fn fields(value: Value) -> Map<String, Value> {
        let Value::Object(fields) = value else { panic!("not an object: {value}") };
        fields
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        (dir, path)
    }

    /// The text of a log with the losses of steps 1 to `steps`.
    fn written(path: &Path, steps: u64) -> Vec<u8> {
        let mut log = MetricsLog::open(path, None).unwrap();
        for step in 1..=steps {
            log.append(step, &fields(json!({"loss": 1.0 / step as f64, "lr": 3e-4}))).unwrap();
        }
        fs::read(path).unwrap()
    }

    #[test]
    fn lines_keep_the_order_of_their_fields() {
        let (_dir, path) = file();
        let mut log = MetricsLog::open(&path, None).unwrap();
        log.append(1, &fields(json!({"loss": 2.5, "accuracy": f64::NAN, "step": 9, "aa": f64::INFINITY})))
            .unwrap();
        log.sync().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"step\":1,\"loss\":2.5,\"accuracy\":null,\"aa\":null}\n"
        );
        let read = MetricsLog::read(&path).unwrap();
        assert_eq!(read[0].step, 1);
        assert_eq!(read[0].fields["loss"], 2.5);
    }

    #[test]
    fn resuming_drops_later_steps_and_keeps_bytes() {
        let (_dir, path) = file();
        let all = written(&path, 5);
        let mut log = MetricsLog::open(&path, Some(3)).unwrap();
        let kept = fs::read(&path).unwrap();
        assert!(all.starts_with(&kept));
        assert_eq!(kept.iter().filter(|byte| **byte == b'\n').count(), 3);
        for step in 4..=5 {
            log.append(step, &fields(json!({"loss": 1.0 / step as f64, "lr": 3e-4}))).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), all);
        drop(MetricsLog::open(&path, None).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_missing_file_has_no_lines() {
        let (_dir, path) = file();
        assert_eq!(MetricsLog::read(&path).unwrap(), []);
        drop(MetricsLog::open(&path, Some(7)).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn damage_in_the_middle_is_reported_and_does_not_stop_a_resume() {
        let (_dir, path) = file();
        fs::write(&path, "{\"step\":1}\n\0\0\0\n{\"loss\":2}\n{\"step\":4}\n").unwrap();
        let error = ErrorReport::of(MetricsLog::read(&path).unwrap_err()).to_string();
        assert!(error.contains("metrics.jsonl:2 is damaged"), "{error}");
        drop(MetricsLog::open(&path, Some(9)).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"{\"step\":1}\n{\"step\":4}\n");
    }

    #[test]
    fn a_directory_in_the_way_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let error = ErrorReport::of(MetricsLog::open(dir.path(), None).unwrap_err()).to_string();
        assert!(error.starts_with(&format!("cannot read {}", dir.path().display())), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever the last write was torn, a reader sees the complete lines, and a resumed run ends with the same
        /// bytes as one that was never interrupted.
        #[test]
        fn a_torn_tail_costs_only_the_torn_line(cut in 0.0..1.0f64, steps in 1u64..6, resume in 0u64..6) {
            let (_dir, path) = file();
            let all = written(&path, steps);
            let at = (cut * all.len() as f64) as usize;
            fs::write(&path, &all[..at]).unwrap();
            let complete: Vec<_> = MetricsLog::read(&path).unwrap().iter().map(|line| line.step).collect();
            let newlines = all[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
            // A line that lacks only its line feed is complete.
            let last = newlines + u64::from(all.get(at) == Some(&b'\n'));
            prop_assert_eq!(complete, (1..=last).collect::<Vec<_>>());

            let resume = resume.min(last);
            let mut log = MetricsLog::open(&path, Some(resume)).unwrap();
            for step in resume + 1..=steps {
                log.append(step, &fields(json!({"loss": 1.0 / step as f64, "lr": 3e-4}))).unwrap();
            }
            prop_assert_eq!(fs::read(&path).unwrap(), all);
        }

        #[test]
        fn arbitrary_bytes_can_be_read_and_resumed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_dir, path) = file();
            fs::write(&path, &bytes).unwrap();
            let _ = MetricsLog::read(&path);
            drop(MetricsLog::open(&path, Some(u64::MAX)).unwrap());
            prop_assert!(MetricsLog::read(&path).is_ok());
        }
    }
}
