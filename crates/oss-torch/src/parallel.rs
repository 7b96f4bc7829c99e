//! Loops over libtorch's own threads, so that its threads and ours never compete for the same cores.

use std::any::Any;
use std::ffi::{c_char, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use super::bridge::checked;

unsafe extern "C" {
    fn oss_parallel_for(
        count: i64,
        work: extern "C" fn(*mut c_void, i64),
        context: *mut c_void,
    ) -> *mut c_char;
}

/// The number of threads that libtorch uses.
pub fn num_threads() -> usize {
    tch::get_num_threads().max(1) as usize
}

/// Splits `len` into at most one range per thread, of nearly equal size and at least `least` each. The split depends
/// only on the number of threads, so that sums over the ranges, added in order, are bit-reproducible.
pub fn shares(len: usize, least: usize) -> Vec<Range<usize>> {
    let count = (len / least.max(1)).clamp(1, num_threads());
    (0..count).map(|i| i * len / count..(i + 1) * len / count).collect()
}

/// State that the threads share: each task is taken once.
struct Shared<'a, T> {
    tasks: Vec<Mutex<Option<T>>>,
    work: &'a (dyn Fn(T) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Runs `work` on every task, one task per thread at a time. Inside another such loop, the tasks run one after the
/// other.
///
/// # Panics
/// Resumes the first panic of `work`, after all tasks have ended.
pub fn parallel_each<T: Send>(tasks: Vec<T>, work: impl Fn(T) + Sync) {
    if tasks.len() <= 1 {
        return tasks.into_iter().for_each(work);
    }
    let count = tasks.len() as i64;
    let tasks = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
    let mut shared = Shared { tasks, work: &work, panic: Mutex::new(None) };
    // SAFETY: `shared` outlives the call, which returns when all indices are done; `run::<T>` reads it as its own type,
    // through a shared reference, and everything that threads share in it is Sync (T is Send, `work` is Sync).
    let message = unsafe { oss_parallel_for(count, run::<T>, (&raw mut shared).cast()) };
    if let Some(panic) = shared.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
    if let Err(error) = checked("a parallel loop", message) {
        unreachable!("the loop itself cannot throw: {error}");
    }
}

extern "C" fn run<T: Send>(context: *mut c_void, index: i64) {
    // SAFETY: `context` is the `Shared<T>` of the caller above, alive and only read until the loop ends.
    let shared = unsafe { &*context.cast::<Shared<'_, T>>() };
    // A panic must not unwind through C++.
    let done = catch_unwind(AssertUnwindSafe(|| {
        let task = shared.tasks[index as usize].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            (shared.work)(task);
        }
    }));
    if let Err(panic) = done {
        shared.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let mut numbers = vec![0u32; 1000];
        parallel_each(numbers.iter_mut().collect(), |number| *number += 1);
        assert!(numbers.iter().all(|&number| number == 1));
    }

    #[test]
    #[should_panic(expected = "the ninth")]
    fn a_panic_in_a_task_reaches_the_caller() {
        parallel_each((0..20).collect(), |i| assert!(i != 9, "the ninth"));
    }

    #[test]
    fn shares_cover_everything_in_order() {
        for (len, least) in [(0, 1), (1, 1), (7, 3), (1000, 1), (1000, 400)] {
            let shares = shares(len, least);
            assert_eq!(shares.iter().map(|share| share.len()).sum::<usize>(), len);
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].len() >= least));
        }
    }
}
