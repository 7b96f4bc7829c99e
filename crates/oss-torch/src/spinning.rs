//! How libtorch's threads wait for each other: spinning where the cores are theirs, mostly asleep where they share them.
//!
//! libgomp, which runs libtorch's loops, lets a waiting thread spin for up to 300,000 iterations, which is milliseconds.
//! Alone on a machine, that is the fastest way to wait. But if the awaited thread has lost its core to another process,
//! the waiting one burns time slices that would have earned its own process a turn. While libgomp manages more threads
//! than there are CPUs, it spins for 100 iterations only (`GOMP_SPINCOUNT` in its manual), a few microseconds; an idle
//! team of threads brings it there, at any time.

use std::env;
use std::ffi::c_char;
use std::fs;
use std::sync::Once;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::bridge::checked;

unsafe extern "C" {
    fn oss_empty_team(busy_threads: i32) -> *mut c_char;
}

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(250);

/// The cores are shared if the threads of this process wait for a core for this fraction of the time that they could
/// run,
const SHARED: f64 = 0.15;

/// and for this long at a time on average, in nanoseconds. To wake up takes less: threads that sleep often wait often,
/// even for a core of their own.
const TURN_OF_OTHERS: u64 = 50_000;

/// Intervals in a row after which this counts: while it starts, a process has many threads for a moment.
const INTERVALS: u32 = 3;

/// Adapts to other processes from now on, on a thread of its own. Only the first call has an effect, and none if the user
/// has set how to wait, or if there is a single thread. Call this after [`tch::set_num_threads`].
pub fn adapt_spinning() {
    static STARTED: Once = Once::new();
    let is_set = |name| env::var_os(name).is_some();
    STARTED.call_once(|| {
        let threads = tch::get_num_threads();
        if threads > 1 && !is_set("GOMP_SPINCOUNT") && !is_set("OMP_WAIT_POLICY") {
            // Without it, only speed suffers.
            drop(thread::Builder::new().name("spinning".into()).spawn(move || adapt(threads)));
        }
    });
}

fn adapt(threads: i32) {
    let Some(mut before) = Scheduled::of_this_process() else { return };
    let mut team = None;
    let (mut shared, mut own) = (0, 0);
    loop {
        thread::sleep(INTERVAL);
        let Some(now) = Scheduled::of_this_process() else { return };
        let is_shared = now.shares_cores_since(&before);
        before = now;
        (shared, own) = if is_shared { (shared + 1, 0) } else { (0, own + 1) };
        if shared >= INTERVALS && team.is_none() {
            team = IdleTeam::start(threads);
        } else if own >= INTERVALS {
            team = None;
        }
    }
}

/// An idle team of threads, until it is dropped.
struct IdleTeam {
    thread: Option<JoinHandle<()>>,
    ends: Option<Sender<()>>,
}

impl IdleTeam {
    /// A team with which libgomp manages more threads than there are CPUs, beside a team of `busy_threads`.
    fn start(busy_threads: i32) -> Option<Self> {
        let (ends, ended) = channel::<()>();
        let work = move || {
            // SAFETY: uses nothing of its caller. The team belongs to this thread, and ends with it.
            drop(checked("an idle team of threads", unsafe { oss_empty_team(busy_threads) }));
            // Fails when the sender is dropped.
            let _ = ended.recv();
        };
        let thread = thread::Builder::new().name("idle team".into()).spawn(work).ok()?;
        Some(Self { thread: Some(thread), ends: Some(ends) })
    }
}

impl Drop for IdleTeam {
    fn drop(&mut self) {
        drop(self.ends.take());
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

/// Times of all threads of a process since they started, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scheduled {
    ran: u64,
    /// Ready to run, without a core.
    waited: u64,
    /// How often they got one.
    turns: u64,
}

impl Scheduled {
    /// From Linux' scheduler statistics; `None` if this kernel has none.
    fn of_this_process() -> Option<Self> {
        let mut sum = Self::default();
        for task in fs::read_dir("/proc/self/task").ok()? {
            // A thread may end in between.
            let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
            let Self { ran, waited, turns } = Self::parse(&text)?;
            sum.ran += ran;
            sum.waited += waited;
            sum.turns += turns;
        }
        Some(sum)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map_while(|number| number.parse().ok());
        Some(Self { ran: numbers.next()?, waited: numbers.next()?, turns: numbers.next()? })
    }

    /// Whether others ran on the cores that these threads could have used since `before`.
    fn shares_cores_since(&self, before: &Self) -> bool {
        // Sums fall when threads end.
        let waited = self.waited.saturating_sub(before.waited);
        let ran = self.ran.saturating_sub(before.ran);
        let turns = self.turns.saturating_sub(before.turns);
        waited as f64 > SHARED * (waited + ran) as f64 && waited > TURN_OF_OTHERS * turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_if_threads_wait_much_and_long() {
        let before = Scheduled::parse("1000000000 500 12\n").unwrap();
        let after = |ran: u64, waited: u64, turns: u64| Scheduled {
            ran: before.ran + ran,
            waited: before.waited + waited,
            turns: before.turns + turns,
        };
        let shares = |now: Scheduled| now.shares_cores_since(&before);
        assert!(shares(after(300_000_000, 200_000_000, 100)), "two busy loops on two cores");
        assert!(!shares(after(490_000_000, 10_000_000, 100)), "alone");
        assert!(!shares(after(300_000_000, 90_000_000, 10_000)), "waking up often");
        assert!(!shares(Scheduled::default()), "threads have ended");
        assert_eq!((Scheduled::parse(""), Scheduled::parse("1 x 2")), (None, None));
        let mine = Scheduled::of_this_process();
        assert!(mine.is_none_or(|mine| mine.ran > 0), "{mine:?}");
    }

    #[test]
    fn an_idle_team_ends_when_it_is_dropped() {
        let names = || {
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            tasks.map(|task| name(task.unwrap())).filter(|name| name == "idle team\n").count()
        };
        let team = IdleTeam::start(2).unwrap();
        // Threads begin and end a little after they are asked to.
        while names() == 0 {
            thread::yield_now();
        }
        drop(team);
        while names() > 0 {
            thread::yield_now();
        }
    }
}
