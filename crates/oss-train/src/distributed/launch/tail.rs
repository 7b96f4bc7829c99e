//! Keeps the last lines of a stream, for error messages.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Number of lines kept.
const KEPT: usize = 20;
/// Maximum bytes per line; a longer line counts as several.
const LONGEST_LINE: u64 = 4096;
/// How long to wait for the end of the stream. It ends when its writer exits, unless a child that the writer left
/// behind holds it open.
const PATIENCE: Duration = Duration::from_millis(500);

/// A thread that reads a stream to its end and keeps its last lines.
pub(super) struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl Tail {
    /// Starts reading.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn of(stream: impl Read + Send + 'static) -> io::Result<Self> {
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        let kept = Arc::clone(&lines);
        let reader = thread::Builder::new().name("last lines".into()).spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            // An error is treated as the end of the stream.
            while let Ok(1..) = stream.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                let mut kept = locked(&kept);
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        })?;
        Ok(Self { lines, reader })
    }

    /// The last lines of a stream whose writer has ended.
    pub fn lines(&self) -> Vec<String> {
        let start = Instant::now();
        while !self.reader.is_finished() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
        locked(&self.lines).iter().cloned().collect()
    }
}

fn locked(lines: &Mutex<VecDeque<String>>) -> MutexGuard<'_, VecDeque<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines() {
        let text: String = (0..100).map(|line| format!("line {line}\r\n")).collect();
        let lines = Tail::of(io::Cursor::new(text)).unwrap().lines();
        assert_eq!(lines.len(), KEPT);
        assert_eq!((lines[0].as_str(), lines[KEPT - 1].as_str()), ("line 80", "line 99"));
    }

    #[test]
    fn splits_long_lines_and_replaces_invalid_utf8() {
        let bytes = [vec![b'x'; 10_000], vec![0xff]].concat();
        let lines = Tail::of(io::Cursor::new(bytes)).unwrap().lines();
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [4096, 4096, 10_000 - 8192 + '\u{fffd}'.len_utf8()]);
    }
}
