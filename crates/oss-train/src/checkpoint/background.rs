//! Writing a rank's file while training continues.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tch::Device;

use super::{Entry, Error, RankFile, Result, rank_file::write_rank_with};
use oss_runs::storage::Disk;

/// A rank's file that is being written in the background.
///
/// If this is dropped without [`Background::wait`], the write is abandoned before the next tensor. The leader then has
/// nothing to commit, so the unfinished file is removed with its directory.
#[derive(Debug)]
pub struct Background {
    /// `None` once it has been joined.
    thread: Option<JoinHandle<Result<RankFile>>>,
    abandoned: Arc<AtomicBool>,
}

impl Background {
    /// Copies `entries` to the host and starts [`super::write_rank`] on the copy. Only the copy blocks the caller. It
    /// takes as much memory as the file has bytes, until the file is written.
    pub fn start(folder: &Path, rank: usize, ranks: usize, entries: &[Entry]) -> Result<Self> {
        Self::start_with(Disk::default(), folder, rank, ranks, entries)
    }

    pub(super) fn start_with(
        disk: Disk,
        folder: &Path,
        rank: usize,
        ranks: usize,
        entries: &[Entry],
    ) -> Result<Self> {
        let copies: Vec<Entry> = entries.iter().map(on_host).collect();
        let abandoned = Arc::new(AtomicBool::new(false));
        let (folder, stop) = (folder.to_owned(), Arc::clone(&abandoned));
        let path = folder.clone();
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || write_rank_with(&disk, &folder, rank, ranks, &copies, &stop))
            .map_err(Error::io("start a thread to write to", &path))?;
        Ok(Self { thread: Some(thread), abandoned })
    }

    /// Whether [`Background::wait`] would return immediately.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the file is written.
    ///
    /// # Errors
    /// As for [`super::write_rank`].
    ///
    /// # Panics
    /// If the writing thread panicked.
    pub fn wait(mut self) -> Result<RankFile> {
        let Some(thread) = self.thread.take() else {
            unreachable!("only wait takes the thread, and it consumes self")
        };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The result is no longer needed, and a panic has already been printed.
            let _ = thread.join();
        }
    }
}

/// A copy that later steps do not change.
fn on_host(entry: &Entry) -> Entry {
    let Entry { name, shape, range, tensor } = entry;
    let copy = tensor.detach().to_device_(Device::Cpu, tensor.kind(), false, true);
    Entry { name: name.clone(), shape: shape.clone(), range: range.clone(), tensor: copy }
}
