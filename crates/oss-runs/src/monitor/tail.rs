//! Reads the end of `metrics.jsonl`, for commands that look at many runs and need only the last values.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Map, Value};

use super::metrics::{lines, parse};

/// Size in bytes of a block.
const BLOCK_BYTES: u64 = 16 << 10;

/// Number of bytes after which the search for a metric is given up.
const MAX_BYTES: u64 = 1 << 20;

/// The last values of some metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsTail {
    /// Step of the last line; `None` if the file is empty.
    pub step: Option<u64>,
    /// The last value of each requested metric that was found; `null` stands for NaN or infinity.
    pub fields: Map<String, Value>,
    /// Names of all metrics encountered, requested or not.
    pub names: BTreeSet<String>,
}

impl MetricsTail {
    /// Finds the last value of each metric in `wanted`, reading backward from the end of the file no further than
    /// necessary, and at most 1 MiB. The file need not exist; damaged and torn lines are skipped.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path, wanted: &[&str]) -> io::Result<Self> {
        let file = match File::open(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            file => file?,
        };
        let bytes = file.metadata()?.len();
        let mut tail = Self::default();
        let mut missing: Vec<(&str, String)> =
            wanted.iter().map(|name| (*name, format!("{}:", Value::from(*name)))).collect();
        let mut end = bytes;
        // The end of a line that begins in the previous block.
        let mut rest: Vec<u8> = Vec::new();
        while end > 0 && bytes - end < MAX_BYTES && !(tail.step.is_some() && missing.is_empty()) {
            let start = end.saturating_sub(BLOCK_BYTES);
            let mut block = vec![0; (end - start) as usize];
            file.read_exact_at(&mut block, start)?;
            block.append(&mut rest);
            let whole = match start {
                0 => 0,
                _ => block.iter().position(|byte| *byte == b'\n').map_or(block.len(), |at| at + 1),
            };
            for (line, _) in lines(&block[whole..]).rev() {
                tail.take(line, &mut missing);
            }
            block.truncate(whole);
            rest = block;
            end = start;
        }
        Ok(tail)
    }

    /// Takes the values from a line that no later line had.
    fn take(&mut self, line: &[u8], missing: &mut Vec<(&str, String)>) {
        let holds = |line: &str| missing.iter().any(|(_, key)| line.contains(key));
        // Most lines have nothing new and are not parsed.
        if self.step.is_some() && !std::str::from_utf8(line).is_ok_and(holds) {
            return;
        }
        let Some(line) = parse(line) else { return };
        self.step = self.step.or(Some(line.step));
        missing.retain(|(name, _)| match line.fields.get(*name) {
            Some(value) => {
                self.fields.insert((*name).to_owned(), value.clone());
                false
            }
            None => true,
        });
        self.names.extend(line.fields.into_iter().map(|(name, _)| name));
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::monitor::MetricsLog;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn the_last_value_of_each_is_found() {
        let text = "{\"step\":1,\"loss\":3,\"lr\":1}\n{\"step\":1,\"val_loss\":2}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"lo";
        let (_dir, path) = file(text);
        let tail = MetricsTail::read(&path, &["loss", "val_loss", "nothing"]).unwrap();
        assert_eq!(tail.step, Some(2));
        assert_eq!(Value::Object(tail.fields), json!({"loss": null, "val_loss": 2}));
        assert_eq!(tail.names.into_iter().collect::<Vec<_>>(), ["loss", "val_loss"]);
        assert_eq!(MetricsTail::read(Path::new("/nowhere"), &["loss"]).unwrap(), MetricsTail::default());
    }

    #[test]
    fn a_long_file_is_not_read_to_its_beginning() {
        let mut text = String::from("{\"step\":0,\"first\":1}\n");
        for step in 1..40_000 {
            writeln!(text, "{{\"step\":{step},\"loss\":{}}}", 1.0 / f64::from(step)).unwrap();
        }
        assert!(text.len() as u64 > MAX_BYTES);
        let (_dir, path) = file(&text);
        let tail = MetricsTail::read(&path, &["first", "loss"]).unwrap();
        assert_eq!((tail.step, tail.fields.len()), (Some(39_999), 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever blocks end and however long lines are, the tail agrees with the whole file.
        #[test]
        fn agrees_with_the_whole_file(pads in prop::collection::vec((0usize..9000, any::<bool>()), 1..12)) {
            let mut text = String::new();
            for (step, (pad, evaluated)) in pads.iter().enumerate() {
                let name = if *evaluated { "val_loss" } else { "loss" };
                writeln!(text, "{}", json!({"step": step, "pad": "x".repeat(*pad), name: step})).unwrap();
            }
            let (_dir, path) = file(&text);
            let tail = MetricsTail::read(&path, &["loss", "val_loss"]).unwrap();
            let all = MetricsLog::read(&path).unwrap();
            prop_assert_eq!(tail.step, all.last().map(|line| line.step));
            for name in ["loss", "val_loss"] {
                let last = all.iter().rev().find_map(|line| line.fields.get(name));
                prop_assert_eq!(tail.fields.get(name), last);
            }
        }
    }
}
