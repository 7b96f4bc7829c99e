//! Writes and reads a checkpoint, compared with a plain write and read of as many bytes on the same disk.
//!
//!     cargo bench --bench checkpoint -- DIRECTORY
//!
//! The checkpoint contains the tensors of the 110 M shape that make up nearly all its bytes, with AdamW's two moments:
//! 1.3 GB. Prints timings in seconds as one JSON document, the best of several rounds; reads are timed once from disk
//! and once from the page cache.

#![expect(clippy::print_stdout, reason = "its output is data")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use oss_torch::{copy_bytes, element_bytes};
use oss_train::checkpoint::{Background, Checkpoint, Entry, Writer, bytes_needed, write_rank};
use serde_json::json;
use tch::{Device, Kind, Tensor};

const ROUNDS: usize = 3;

/// Bytes per plain write.
const CHUNK_BYTES: usize = 8 << 20;

fn main() -> Result<()> {
    // cargo adds `--bench` to the arguments.
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let directory = directory.context("pass a directory on the disk to measure")?;
    let scratch = tempfile::tempdir_in(directory)?;
    let entries = entries();
    let bytes = bytes_needed(&entries)?;
    let mut best = Best::default();
    for step in 1..=ROUNDS as u64 {
        let plain = scratch.path().join("plain");
        best.take("plain_write", || write_plainly(&plain, &entries))?;
        best.take("plain_read_warm", || read_plainly(&plain))?;
        forget(&plain)?;
        best.take("plain_read", || read_plainly(&plain))?;
        fs::remove_file(&plain)?;

        let dir = scratch.path().join("checkpoints");
        let path = best.take("save", || save(&dir, step, &entries, bytes))?;
        best.take("load_warm", || load(&path))?;
        best.take("verify_warm", || Ok(Checkpoint::open(&path)?.verify()?))?;
        for file in fs::read_dir(&path)? {
            forget(&file?.path())?;
        }
        best.take("load", || load(&path))?;
        for file in fs::read_dir(&path)? {
            forget(&file?.path())?;
        }
        best.take("verify", || Ok(Checkpoint::open(&path)?.verify()?))?;
        fs::remove_dir_all(&dir)?;

        let writer = Writer::begin(&dir, step, bytes)?;
        let background = best.take("pause", || Ok(Background::start(writer.folder(), 0, 1, &entries)?))?;
        drop(background);
    }
    println!("{}", json!({ "bytes": bytes, "seconds": best.seconds }));
    Ok(())
}

/// The best time of each operation, in seconds.
#[derive(Default)]
struct Best {
    seconds: serde_json::Map<String, serde_json::Value>,
}

impl Best {
    fn take<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let done = work()?;
        let seconds = started.elapsed().as_secs_f64();
        let before = self.seconds.get(name).and_then(serde_json::Value::as_f64);
        self.seconds.insert(name.into(), before.unwrap_or(f64::INFINITY).min(seconds).into());
        Ok(done)
    }
}

/// Embedding and head `[201088, 256]`, and the experts of eight blocks, `[4, 512, 256]` and `[4, 256, 256]`.
fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for state in ["", "optimizer.first/", "optimizer.second/"] {
        let mut add = |name: String, shape: &[i64]| {
            let tensor = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            entries.push(Entry::whole(format!("{state}{name}"), &tensor));
        };
        add("embed".into(), &[201_088, 256]);
        add("head".into(), &[201_088, 256]);
        for block in 0..8 {
            add(format!("{block}.gate_up"), &[4, 512, 256]);
            add(format!("{block}.down"), &[4, 256, 256]);
        }
    }
    entries
}

fn save(dir: &Path, step: u64, entries: &[Entry], bytes: u64) -> Result<std::path::PathBuf> {
    let writer = Writer::begin(dir, step, bytes)?;
    let report = write_rank(writer.folder(), 0, 1, entries)?;
    Ok(writer.commit(vec![Ok(report)], &json!({}))?)
}

/// As when resuming: loads and verifies every tensor.
fn load(path: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.names().try_for_each(|name| checkpoint.load(name).map(drop))?;
    Ok(())
}

fn write_plainly(path: &Path, entries: &[Entry]) -> Result<()> {
    let mut file = File::create(path)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    for Entry { tensor, .. } in entries {
        let len = tensor.numel() * element_bytes(tensor.kind());
        for start in (0..len).step_by(CHUNK_BYTES) {
            let chunk = &mut buffer[..CHUNK_BYTES.min(len - start)];
            copy_bytes(tensor, start, chunk);
            file.write_all(chunk)?;
        }
    }
    Ok(file.sync_all()?)
}

/// Reads into newly allocated memory, as for weights.
fn read_plainly(path: &Path) -> Result<()> {
    drop(fs::read(path)?);
    Ok(())
}

/// Evicts a file from the page cache, so that the next read comes from disk.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}
