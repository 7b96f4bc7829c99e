//! Prefetches the inputs of upcoming steps on a background thread.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, Scope};

use anyhow::{Context, Result};

use crate::libtorch_error::catch_torch_panic;
use oss_config::error::Hint;

/// How many steps the thread runs ahead.
const DEPTH: usize = 2;

/// The receiving end of a thread that produces one item per step, in order. The thread ends after the last step, after
/// a failure, or soon after this is dropped.
#[derive(Debug)]
pub struct Prefetcher<T> {
    ready: Receiver<Result<T>>,
}

impl<T: Send> Prefetcher<T> {
    /// Spawns the thread, which calls `make` for each of `steps`.
    ///
    /// # Errors
    /// Fails if the thread cannot be spawned.
    pub fn spawn<'scope>(
        scope: &'scope Scope<'scope, '_>,
        steps: Range<u64>,
        make: impl Fn(u64) -> Result<T> + Send + 'scope,
    ) -> Result<Self>
    where
        T: 'scope,
    {
        let (sender, ready) = sync_channel(DEPTH);
        let run = move || {
            for step in steps {
                let made = catch_torch_panic(|| make(step));
                let is_last = made.is_err();
                // The receiver is gone if training stopped or failed.
                if sender.send(made).is_err() || is_last {
                    break;
                }
            }
        };
        let thread = Builder::new().name("batches".to_owned()).spawn_scoped(scope, run);
        thread
            .context("cannot spawn the thread that prefetches batches")
            .hint("lower the number of processes on this machine")?;
        Ok(Self { ready })
    }

    /// The item for the next step.
    ///
    /// # Errors
    /// Fails if the item could not be produced, or if no steps remain.
    pub fn next(&self) -> Result<T> {
        self.ready.recv().context("no more batches: the prefetch thread has ended")?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    use anyhow::bail;
    use tch::Device;

    use super::*;
    use crate::train::GlobalBatch;
    use oss_config::{Experiment, Train};
    use oss_data::{Batches, TokenFile};

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn prefetched_batches_match_their_steps_from_any_first_step() {
        let dir = tempfile::tempdir().unwrap();
        let sources = [("a", 301u32, 2.0), ("b", 97, 1.0)].map(|(name, len, weight)| {
            let path = dir.path().join(name);
            let tokens: Vec<u32> = (0..len).map(|i| i * i % 251).collect();
            std::fs::write(&path, bytemuck::cast_slice(&tokens)).unwrap();
            (weight, Arc::new(TokenFile::open(&path, u64::from(len)).unwrap()))
        });
        let train = Train {
            sequence_length: 8,
            global_batch_size: 6,
            micro_batch_size: 2,
            ..Experiment::default().train
        };
        let batches = Batches::new(sources.to_vec(), 3, 8).unwrap();
        let (share, end) = ((1, 2), Some(4));
        let staged =
            |step| GlobalBatch::rank_slice(&batches, &train, step, share).staged(&train, end, Device::Cpu);
        for first in [0, 1, 5, 40] {
            let prefetched = thread::scope(|scope| {
                let prefetcher = Prefetcher::spawn(scope, first..first + 7, staged).unwrap();
                (0..7).map(|_| prefetcher.next().unwrap()).collect::<Vec<_>>()
            });
            for (step, staged) in (first..).zip(prefetched) {
                let rows = GlobalBatch::rank_slice(&batches, &train, step, share).into_rows();
                assert_eq!(staged.digest(), GlobalBatch::from_rows(rows.clone()).digest(), "step {step}");
                let micro_batches = staged.micro_batches();
                assert_eq!(micro_batches.len(), 2, "3 rows per rank, 2 per micro-batch");
                let seen: Vec<Vec<i64>> = (micro_batches.iter())
                    .flat_map(|micro| {
                        let inputs = micro.inputs.tokens.split(1, 0).into_iter();
                        inputs.zip(micro.targets.split(8, 0))
                    })
                    .map(|(inputs, targets)| {
                        let mut row = Vec::<i64>::try_from(inputs.narrow(1, 0, 1).flatten(0, -1)).unwrap();
                        row.extend(Vec::<i64>::try_from(targets).unwrap());
                        row
                    })
                    .collect();
                assert_eq!(seen, rows, "step {step}");
                assert!(micro_batches.iter().all(|micro| micro.inputs.documents.is_some()));
            }
        }
    }

    #[test]
    fn works_ahead_and_stops_with_its_reader() {
        let (begun, steps) = mpsc::channel();
        thread::scope(|scope| {
            let make = move |step| {
                begun.send(step).unwrap();
                Ok(step)
            };
            let prefetcher = Prefetcher::spawn(scope, 10..u64::MAX, make).unwrap();
            assert_eq!([prefetcher.next().unwrap(), prefetcher.next().unwrap()], [10, 11]);
            for step in 10..12 + DEPTH as u64 {
                assert_eq!(steps.recv_timeout(PATIENCE), Ok(step), "produced before it is requested");
            }
        });
        // The scope has joined the thread, which had started at most one more.
        assert!(steps.iter().count() <= 1);
    }

    #[test]
    fn a_failure_is_reported_at_its_step() {
        thread::scope(|scope| {
            let make = |step| if step == 1 { bail!("disk failure") } else { Ok(step) };
            let prefetcher = Prefetcher::spawn(scope, 0..5, make).unwrap();
            assert_eq!(prefetcher.next().unwrap(), 0);
            assert_eq!(prefetcher.next().unwrap_err().to_string(), "disk failure");
            assert!(prefetcher.next().unwrap_err().to_string().starts_with("no more batches"));
        });
    }

    #[test]
    fn there_are_no_batches_after_the_last_step() {
        thread::scope(|scope| {
            let prefetcher = Prefetcher::spawn(scope, 3..4, Ok).unwrap();
            assert_eq!(prefetcher.next().unwrap(), 3);
            assert!(prefetcher.next().is_err());
        });
    }
}
