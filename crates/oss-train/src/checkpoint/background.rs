//! A rank's file written while training goes on.

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

/// A rank's file on its way to the disk.
///
/// Dropped before it has been waited for, it gives up in front of the next tensor. The leader then has no report to
/// commit, so that the unfinished file goes with its folder.
#[derive(Debug)]
pub struct Background {
    /// None once it has been waited for.
    thread: Option<JoinHandle<Result<RankFile>>>,
    abandoned: Arc<AtomicBool>,
}

impl Background {
    /// Copies `entries` to the host, which is what the caller waits for, and starts [`super::write_rank`] on the copy.
    /// The copy takes as many bytes as the file, until it is written.
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
        let (folder, give_up) = (folder.to_owned(), Arc::clone(&abandoned));
        let path = folder.clone();
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || write_rank_with(&disk, &folder, rank, ranks, &copies, &give_up))
            .map_err(Error::io("start the thread that writes to", &path))?;
        Ok(Self { thread: Some(thread), abandoned })
    }

    /// Whether [`Background::wait`] would return at once.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the file.
    ///
    /// # Errors
    /// As for [`super::write_rank`].
    ///
    /// # Panics
    /// When the writing did.
    pub fn wait(mut self) -> Result<RankFile> {
        let Some(thread) = self.thread.take() else {
            unreachable!("only this takes the thread, and it takes self")
        };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Nobody wants the result any more, and a panic has been printed.
            let _ = thread.join();
        }
    }
}

/// A copy that later steps do not touch.
fn on_host(entry: &Entry) -> Entry {
    let Entry { name, shape, range, tensor } = entry;
    let copy = tensor.detach().to_device_(Device::Cpu, tensor.kind(), false, true);
    Entry { name: name.clone(), shape: shape.clone(), range: range.clone(), tensor: copy }
}
