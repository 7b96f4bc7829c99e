//! Process groups, which exchange tensors.

use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tch::Tensor;
use torch_sys::C_tensor;

use super::Store;
use super::handle::{self, milliseconds, non_null};
use crate::bridge::checked;

unsafe extern "C" {
    fn oss_group_open(
        transport: c_int,
        store: *mut handle::Store,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        interface: *const c_char,
        group: *mut *mut handle::Group,
    ) -> *mut c_char;
    fn oss_group_all_gather(
        group: *mut handle::Group,
        output: *const C_tensor,
        input: *const C_tensor,
        work: *mut *mut handle::Work,
    ) -> *mut c_char;
    fn oss_group_reduce_scatter(
        group: *mut handle::Group,
        output: *const C_tensor,
        input: *const C_tensor,
        work: *mut *mut handle::Work,
    ) -> *mut c_char;
    fn oss_group_all_reduce(
        group: *mut handle::Group,
        tensor: *const C_tensor,
        work: *mut *mut handle::Work,
    ) -> *mut c_char;
    fn oss_group_broadcast(
        group: *mut handle::Group,
        tensor: *const C_tensor,
        root: c_int,
        work: *mut *mut handle::Work,
    ) -> *mut c_char;
    fn oss_group_free(group: *mut handle::Group);
    fn oss_work_wait(work: *mut handle::Work) -> *mut c_char;
    fn oss_work_free(work: *mut handle::Work);
}

/// The backend of a process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// NVIDIA's collectives between GPUs.
    Nccl,
    /// Collectives on the CPU (GPU tensors pass through host memory).
    Gloo,
    /// c10d's fake group: every collective returns immediately and moves nothing. For dry runs of one rank among many.
    Fake,
}

/// A group of processes that exchange tensors (c10d's `ProcessGroup` backends). All members must call the same
/// collectives in the same order, from one thread.
#[derive(Debug)]
pub struct ProcessGroup {
    handle: NonNull<handle::Group>,
    transport: Transport,
    rank: usize,
    size: usize,
    // Collectives are matched across processes by their order, so a group stays on its thread.
    _not_send: PhantomData<*mut ()>,
}

impl ProcessGroup {
    /// Joins the group as `rank` of `size`; returns once all ranks have joined. Each group needs its own prefix of the
    /// `store`; the fake group needs no store. `interface` binds the group to a network interface, such as `lo`.
    ///
    /// # Errors
    /// Fails if the other ranks do not join within `timeout`, there is no GPU, or the interface does not exist.
    pub fn open(
        transport: Transport,
        store: Option<&Store>,
        (rank, size): (usize, usize),
        timeout: Duration,
        interface: Option<&str>,
    ) -> Result<Self> {
        let interface = interface.map(CString::new).transpose()?;
        let mut group = null_mut();
        // SAFETY: pointers outlive the call; the group counts its own reference to the store. In a CUDA build it may
        // set an environment variable, which this program's other threads do not read.
        let message = unsafe {
            oss_group_open(
                transport as c_int,
                store.map_or(null_mut(), |store| store.0.as_ptr()),
                rank as c_int,
                size as c_int,
                milliseconds(timeout),
                interface.as_ref().map_or(null(), |name| name.as_ptr()),
                &mut group,
            )
        };
        checked("joining the other ranks", message)?;
        Ok(Self { handle: non_null(group), transport, rank, size, _not_send: PhantomData })
    }

    /// Gathers every rank's part into `output`, in rank order; `output` is 1-D and already holds this rank's part.
    ///
    /// With Gloo, c10d would gather into a copy of all of `output`. Broadcasting the parts moves as many bytes, in
    /// place.
    ///
    /// # Errors
    /// Fails if shapes or kinds do not match.
    pub fn all_gather(&self, output: &Tensor) -> Result<Work> {
        if self.transport == Transport::Gloo {
            let mut all = Work { what: "all-gather", handles: Vec::new(), tensors: Vec::new(), part: None };
            for root in 0..self.size {
                let mut work = self.broadcast(&self.part(output, root), root)?;
                all.handles.append(&mut work.handles);
                all.tensors.append(&mut work.tensors);
            }
            return Ok(all);
        }
        let input = &self.part(output, self.rank);
        self.start("all-gather", [output, input], |work| {
            // SAFETY: the tensors are live, and the `Work` keeps them until it is waited for.
            unsafe { oss_group_all_gather(self.handle.as_ptr(), output.as_ptr(), input.as_ptr(), work) }
        })
    }

    /// Sums `input` over all ranks and leaves this rank's part of the sum in `output`. `input` may be overwritten.
    ///
    /// Gloo has no reduce-scatter, and c10d's substitute all-reduces a copy of `input`; here `input` itself is reduced,
    /// with the same traffic and without the copy.
    ///
    /// # Errors
    /// Fails if shapes or kinds do not match.
    pub fn reduce_scatter(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        if self.transport == Transport::Gloo {
            let mut work = self.all_reduce(input)?;
            work.part = Some((output.shallow_clone(), self.part(input, self.rank)));
            return Ok(work);
        }
        self.start("reduce-scatter", [output, input], |work| {
            // SAFETY: as in `all_gather`.
            unsafe { oss_group_reduce_scatter(self.handle.as_ptr(), output.as_ptr(), input.as_ptr(), work) }
        })
    }

    /// Sums `tensor` over all ranks, in place.
    ///
    /// # Errors
    /// Fails if shapes or kinds do not match.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<Work> {
        self.start("all-reduce", [tensor], |work| {
            // SAFETY: as in `all_gather`.
            unsafe { oss_group_all_reduce(self.handle.as_ptr(), tensor.as_ptr(), work) }
        })
    }

    /// Broadcasts the `tensor` of rank `root` to all ranks.
    ///
    /// # Errors
    /// Fails if shapes or kinds do not match.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work> {
        self.start("broadcast", [tensor], |work| {
            // SAFETY: as in `all_gather`.
            unsafe { oss_group_broadcast(self.handle.as_ptr(), tensor.as_ptr(), root as c_int, work) }
        })
    }

    fn part(&self, whole: &Tensor, rank: usize) -> Tensor {
        let len = whole.size()[0] / self.size as i64;
        whole.narrow(0, len * rank as i64, len)
    }

    fn start<const N: usize>(
        &self,
        what: &'static str,
        tensors: [&Tensor; N],
        call: impl FnOnce(*mut *mut handle::Work) -> *mut c_char,
    ) -> Result<Work> {
        let mut work = null_mut();
        checked(what, {
            let _one = one_at_a_time();
            call(&mut work)
        })?;
        let tensors = tensors.iter().map(|tensor| tensor.shallow_clone()).collect();
        Ok(Work { what, handles: vec![non_null(work)], tensors, part: None })
    }
}

/// libtorch records the start of every collective in process-wide tables, some of which have no lock, so groups on two
/// threads must not start one at the same time. Held only while a collective starts.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static BEGINNING: Mutex<()> = Mutex::new(());
    BEGINNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: created by the C side, freed once.
        unsafe { oss_group_free(self.handle.as_ptr()) };
    }
}

/// A collective in flight.
#[derive(Debug)]
#[must_use = "the result is available only after `wait`"]
pub struct Work {
    what: &'static str,
    /// In the order in which they started.
    handles: Vec<NonNull<handle::Work>>,
    tensors: Vec<Tensor>,
    /// Destination of a part of the result, and the part.
    part: Option<(Tensor, Tensor)>,
}

impl Work {
    /// Waits for the result: on the CPU this blocks the thread, on a GPU the current stream.
    ///
    /// # Errors
    /// Fails if another rank is gone, or did not take part within the group's timeout.
    pub fn wait(mut self) -> Result<()> {
        for handle in self.handles.drain(..) {
            // SAFETY: created by the C side and still live.
            let message = unsafe { oss_work_wait(handle.as_ptr()) };
            // SAFETY: drained, so freed once.
            unsafe { oss_work_free(handle.as_ptr()) };
            checked(self.what, message)?;
        }
        self.tensors.clear();
        if let Some((mut output, part)) = self.part.take() {
            output.copy_(&part);
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // This was not waited for, or waiting failed: libtorch may still read and write the tensors, so they are
        // leaked. The process is about to end with an error.
        self.tensors.drain(..).for_each(std::mem::forget);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use tch::{Device, Kind};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Runs `member` as each rank of a Gloo group, on threads, and returns the results.
    fn group<T: Send + 'static>(
        size: usize,
        member: impl Fn(usize, ProcessGroup) -> T + Send + Copy + 'static,
    ) -> Vec<T> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _served = Store::serve(listener, PATIENCE).unwrap();
        let join = move |rank| {
            let store = Store::connect("127.0.0.1", port, PATIENCE).unwrap();
            let group = ProcessGroup::open(Transport::Gloo, Some(&store), (rank, size), PATIENCE, Some("lo"));
            member(rank, group.unwrap())
        };
        let ranks: Vec<_> = (0..size).map(|rank| thread::spawn(move || join(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.to_kind(Kind::Float)).unwrap()
    }

    #[test]
    fn collectives_give_the_expected_results() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let seen = group(3, move |rank, group| {
                let options = (kind, Device::Cpu);
                let gathered = Tensor::zeros([6], options);
                let _ = gathered.narrow(0, 2 * rank as i64, 2).fill_(rank as f64 + 1.0);
                group.all_gather(&gathered).unwrap().wait().unwrap();
                let part = Tensor::zeros([2], options);
                let whole = Tensor::arange(6, options) * (rank as f64 + 1.0);
                group.reduce_scatter(&part, &whole).unwrap().wait().unwrap();
                let sum = Tensor::full([1], rank as f64, options);
                group.all_reduce(&sum).unwrap().wait().unwrap();
                let told = Tensor::full([1], rank as f64, options);
                group.broadcast(&told, 1).unwrap().wait().unwrap();
                [gathered, part, sum, told].map(|tensor| numbers(&tensor))
            });
            for (rank, [gathered, part, sum, told]) in seen.into_iter().enumerate() {
                assert_eq!(gathered, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
                let first = 2.0 * rank as f32;
                assert_eq!(part, [6.0 * first, 6.0 * (first + 1.0)]);
                assert_eq!([sum[0], told[0]], [3.0, 1.0]);
            }
        }
    }

    #[test]
    fn an_exited_rank_is_an_error() {
        let outcomes = group(2, |rank, group| {
            if rank == 1 {
                return Ok(());
            }
            let tensor = Tensor::zeros([4], (Kind::Float, Device::Cpu));
            group.all_reduce(&tensor).and_then(Work::wait)
        });
        assert!(outcomes[0].as_ref().unwrap_err().to_string().starts_with("all-reduce: "), "{outcomes:?}");
    }
}
