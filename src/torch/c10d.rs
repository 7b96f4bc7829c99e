//! c10d: the store in which processes meet, and the groups that move tensors between them.

use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::ptr::{NonNull, null, null_mut};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tch::Tensor;
use torch_sys::C_tensor;

use super::bridge::checked;

/// What libtorch may take longer to give up than it was told.
const GRACE: Duration = Duration::from_secs(1);

/// The C side's objects.
mod handle {
    pub enum Store {}
    pub enum Group {}
    pub enum Work {}
}

unsafe extern "C" {
    fn oss_store_open(
        host: *const c_char,
        port: u16,
        listener: c_int,
        timeout_ms: i64,
        store: *mut *mut handle::Store,
    ) -> *mut c_char;
    fn oss_store_prefixed(
        store: *mut handle::Store,
        prefix: *const c_char,
        prefixed: *mut *mut handle::Store,
    ) -> *mut c_char;
    fn oss_store_set(
        store: *mut handle::Store,
        key: *const c_char,
        bytes: *const u8,
        length: usize,
    ) -> *mut c_char;
    fn oss_store_get(
        store: *mut handle::Store,
        key: *const c_char,
        bytes: *mut *mut u8,
        length: *mut usize,
    ) -> *mut c_char;
    fn oss_free_bytes(bytes: *mut u8);
    fn oss_store_delete(store: *mut handle::Store, key: *const c_char) -> *mut c_char;
    fn oss_store_add(
        store: *mut handle::Store,
        key: *const c_char,
        amount: i64,
        sum: *mut i64,
    ) -> *mut c_char;
    fn oss_store_free(store: *mut handle::Store);
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
        code: c_int,
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

/// A key-value store that several processes share over TCP (c10d's TCPStore).
#[derive(Debug)]
pub struct Store(NonNull<handle::Store>);

// SAFETY: c10d's TCPStore takes a lock of its own around every exchange with the server, and its PrefixStore holds
// nothing but the store below and a constant text; both are shared between threads by PyTorch itself.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Serves a store in this process on `listener`; also this process's connection to it.
    ///
    /// # Errors
    /// libtorch cannot take the socket over.
    pub fn serve(listener: TcpListener, timeout: Duration) -> Result<Self> {
        let address = listener.local_addr().context("the store's socket has no address")?;
        // A socket that listens everywhere is reached over loopback from here.
        let host =
            if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
        Self::open(&host, address.port(), Some(listener), timeout)
    }

    /// Connects to a store that another process serves. It is tried again until `timeout` is over.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        // libtorch gives up connecting in time, but waits without end for the first word of a server that is not a store's.
        let (sender, receiver) = mpsc::channel();
        let host = host.to_owned();
        thread::Builder::new().name("store".into()).spawn(move || {
            // Nobody listens any more when the time is over.
            let _ = sender.send(Self::open(&host, port, None, timeout));
        })?;
        match receiver.recv_timeout(timeout + GRACE) {
            Ok(opened) => opened,
            Err(_) => bail!("the store: it takes connections and does not answer"),
        }
    }

    fn open(host: &str, port: u16, listener: Option<TcpListener>, timeout: Duration) -> Result<Self> {
        let host = CString::new(host)?;
        let listener = listener.map_or(-1, IntoRawFd::into_raw_fd);
        let mut store = null_mut();
        // SAFETY: `host` and `store` outlive the call, and the socket's ownership goes with it.
        let message =
            unsafe { oss_store_open(host.as_ptr(), port, listener, milliseconds(timeout), &mut store) };
        checked("the store", message)?;
        Ok(Self(made(store)))
    }

    /// The same store, with `prefix` in front of every key.
    ///
    /// # Errors
    /// Only for a prefix with a NUL in it.
    pub fn prefixed(&self, prefix: &str) -> Result<Self> {
        let prefix = CString::new(prefix)?;
        let mut prefixed = null_mut();
        // SAFETY: the store lives as long as `self`; the new one counts a reference to it.
        let message = unsafe { oss_store_prefixed(self.0.as_ptr(), prefix.as_ptr(), &mut prefixed) };
        checked("the store", message)?;
        Ok(Self(made(prefixed)))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// The server is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = CString::new(key)?;
        // SAFETY: the slice is read during the call only.
        let message = unsafe { oss_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len()) };
        checked("the store", message)
    }

    /// The value of a key; none while nobody has set it.
    ///
    /// # Errors
    /// The server is gone.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = CString::new(key)?;
        let (mut bytes, mut length) = (null_mut(), 0);
        // SAFETY: both results outlive the call.
        let message = unsafe { oss_store_get(self.0.as_ptr(), key.as_ptr(), &mut bytes, &mut length) };
        checked("the store", message)?;
        if bytes.is_null() {
            return Ok(None);
        }
        // SAFETY: a non-null result holds `length` bytes, which are ours until freed below.
        let value = unsafe { std::slice::from_raw_parts(bytes, length) }.to_vec();
        // SAFETY: allocated by oss_store_get, not used after this.
        unsafe { oss_free_bytes(bytes) };
        Ok(Some(value))
    }

    /// Forgets a key, if it is there.
    ///
    /// # Errors
    /// The server is gone.
    pub fn delete(&self, key: &str) -> Result<()> {
        let key = CString::new(key)?;
        // SAFETY: the text outlives the call.
        checked("the store", unsafe { oss_store_delete(self.0.as_ptr(), key.as_ptr()) })
    }

    /// Adds to a counter, which starts at 0, and returns the sum.
    ///
    /// # Errors
    /// The server is gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key = CString::new(key)?;
        let mut sum = 0;
        // SAFETY: `sum` outlives the call.
        let message = unsafe { oss_store_add(self.0.as_ptr(), key.as_ptr(), amount, &mut sum) };
        checked("the store", message)?;
        Ok(sum)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by the C side, freed once.
        unsafe { oss_store_free(self.0.as_ptr()) };
    }
}

/// What moves the tensors of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// NVIDIA's collectives, between GPUs.
    Nccl,
    /// Collectives on the CPU (tensors of GPUs pass through host memory).
    Gloo,
    /// c10d's fake group: every collective returns at once and moves nothing, for dry runs of one rank among many.
    Fake,
}

/// How an all-reduce joins numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// Processes that exchange tensors (c10d's `ProcessGroup` backends). Every member calls the same collectives in the same
/// order, from one thread.
#[derive(Debug)]
pub struct ProcessGroup {
    handle: NonNull<handle::Group>,
    // Order of calls is what matches them across processes, so a group stays on its thread.
    _not_send: PhantomData<*mut ()>,
}

impl ProcessGroup {
    /// Joins as `rank` of `size`; returns when all have joined. `store` is the group's own, under a prefix of its own;
    /// the fake group needs none. `interface` binds it to a network interface, such as `lo`.
    ///
    /// # Errors
    /// Others do not come within `timeout`; no GPU; an interface that does not exist.
    pub fn open(
        transport: Transport,
        store: Option<&Store>,
        (rank, size): (usize, usize),
        timeout: Duration,
        interface: Option<&str>,
    ) -> Result<Self> {
        let interface = interface.map(CString::new).transpose()?;
        let mut group = null_mut();
        // SAFETY: pointers outlive the call; the group counts its own reference to the store. In a CUDA build it may set a
        // variable of the environment, which this program's other threads do not read.
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
        Ok(Self { handle: made(group), _not_send: PhantomData })
    }

    /// Joins everyone's `input` in `output`, in the order of the ranks; `input` may be its own part of `output`.
    ///
    /// # Errors
    /// Shapes or kinds that do not fit.
    pub fn all_gather(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        self.start("all-gather", [output, input], |work| {
            // SAFETY: the tensors are live, and the work keeps them until it is waited for.
            unsafe { oss_group_all_gather(self.handle.as_ptr(), output.as_ptr(), input.as_ptr(), work) }
        })
    }

    /// Sums everyone's `input` and leaves this rank's part of the sum in `output`. `input` may be changed on the way.
    ///
    /// # Errors
    /// Shapes or kinds that do not fit.
    pub fn reduce_scatter(&self, output: &Tensor, input: &Tensor) -> Result<Work> {
        self.start("reduce-scatter", [output, input], |work| {
            // SAFETY: as in `all_gather`.
            unsafe { oss_group_reduce_scatter(self.handle.as_ptr(), output.as_ptr(), input.as_ptr(), work) }
        })
    }

    /// Joins everyone's `tensor` in place.
    ///
    /// # Errors
    /// Shapes or kinds that do not fit.
    pub fn all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<Work> {
        self.start("all-reduce", [tensor], |work| {
            // SAFETY: as in `all_gather`.
            unsafe { oss_group_all_reduce(self.handle.as_ptr(), tensor.as_ptr(), reduce as c_int, work) }
        })
    }

    /// Gives everyone the `tensor` of `root`.
    ///
    /// # Errors
    /// Shapes or kinds that do not fit.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work> {
        self.start("broadcast", [tensor], |work| {
            // SAFETY: as in `all_gather`.
            unsafe { oss_group_broadcast(self.handle.as_ptr(), tensor.as_ptr(), root as c_int, work) }
        })
    }

    fn start<const N: usize>(
        &self,
        what: &'static str,
        tensors: [&Tensor; N],
        call: impl FnOnce(*mut *mut handle::Work) -> *mut c_char,
    ) -> Result<Work> {
        let mut work = null_mut();
        checked(what, call(&mut work))?;
        let tensors = tensors.iter().map(|tensor| tensor.shallow_clone()).collect();
        Ok(Work { what, handle: Some(made(work)), tensors })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by the C side, freed once.
        unsafe { oss_group_free(self.handle.as_ptr()) };
    }
}

/// A collective under way.
#[derive(Debug)]
#[must_use = "the result is there only after `wait`"]
pub struct Work {
    what: &'static str,
    handle: Option<NonNull<handle::Work>>,
    tensors: Vec<Tensor>,
}

impl Work {
    /// Waits for the result: on the CPU the thread does, on a GPU the current stream.
    ///
    /// # Errors
    /// Another rank is gone, or did not take part within the group's timeout.
    pub fn wait(mut self) -> Result<()> {
        let Some(handle) = self.handle.take() else { return Ok(()) };
        // SAFETY: made by the C side and still live.
        let message = unsafe { oss_work_wait(handle.as_ptr()) };
        // SAFETY: taken out above, so freed once.
        unsafe { oss_work_free(handle.as_ptr()) };
        let outcome = checked(self.what, message);
        if outcome.is_ok() {
            self.tensors.clear();
        }
        outcome
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Nobody waited, or waiting failed: libtorch may still read and write the tensors, so they stay for good. The
        // process is about to end with an error.
        self.tensors.drain(..).for_each(std::mem::forget);
    }
}

fn made<T>(handle: *mut T) -> NonNull<T> {
    NonNull::new(handle)
        .unwrap_or_else(|| unreachable!("the C side returned neither an object nor a message"))
}

fn milliseconds(timeout: Duration) -> i64 {
    timeout.as_millis().min(i64::MAX as u128) as i64
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn serve() -> (Store, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (Store::serve(listener, PATIENCE).unwrap(), port)
    }

    #[test]
    fn a_store_is_shared_between_connections() {
        let (served, port) = serve();
        let other = Store::connect("127.0.0.1", port, PATIENCE).unwrap();
        assert_eq!(other.get("colour").unwrap(), None);
        served.set("colour", b"blue").unwrap();
        assert_eq!(other.get("colour").unwrap().as_deref(), Some(&b"blue"[..]));
        served.delete("colour").unwrap();
        assert_eq!(other.get("colour").unwrap(), None);
        other.set("empty", b"").unwrap();
        assert_eq!(served.get("empty").unwrap(), Some(Vec::new()));
        assert_eq!((served.add("count", 2).unwrap(), other.add("count", 3).unwrap()), (2, 5));
        let apart = served.prefixed("apart").unwrap();
        assert_eq!(apart.get("colour").unwrap(), None);
    }

    #[test]
    fn a_store_that_does_not_answer_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect =
            || Store::connect("127.0.0.1", port, Duration::from_millis(300)).unwrap_err().to_string();
        // Bound and not served: the system takes connections, and nobody says a word.
        assert_eq!(connect(), "the store: it takes connections and does not answer");
        // A closed port refuses them.
        drop(listener);
        assert!(connect().starts_with("the store: "));
    }

    /// Runs `member` as each rank of a Gloo group, on threads, and returns what they return.
    fn group<T: Send + 'static>(
        size: usize,
        member: impl Fn(usize, ProcessGroup) -> T + Send + Copy + 'static,
    ) -> Vec<T> {
        let (_served, port) = serve();
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
    fn collectives_do_what_their_names_say() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let seen = group(3, move |rank, group| {
                let options = (kind, Device::Cpu);
                let gathered = Tensor::zeros([6], options);
                // In place: the rank's own part of the output is its input.
                let mut own = gathered.narrow(0, 2 * rank as i64, 2);
                let _ = own.fill_(rank as f64 + 1.0);
                group.all_gather(&gathered, &own).unwrap().wait().unwrap();
                let part = Tensor::zeros([2], options);
                let whole = Tensor::arange(6, options) * (rank as f64 + 1.0);
                group.reduce_scatter(&part, &whole).unwrap().wait().unwrap();
                let (sum, max) =
                    (Tensor::full([1], rank as f64, options), Tensor::full([1], rank as f64, options));
                group.all_reduce(&sum, Reduce::Sum).unwrap().wait().unwrap();
                group.all_reduce(&max, Reduce::Max).unwrap().wait().unwrap();
                let told = Tensor::full([1], rank as f64, options);
                group.broadcast(&told, 1).unwrap().wait().unwrap();
                [gathered, part, sum, max, told].map(|tensor| numbers(&tensor))
            });
            for (rank, [gathered, part, sum, max, told]) in seen.into_iter().enumerate() {
                assert_eq!(gathered, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
                let first = 2.0 * rank as f32;
                assert_eq!(part, [6.0 * first, 6.0 * (first + 1.0)]);
                assert_eq!([sum[0], max[0], told[0]], [3.0, 2.0, 1.0]);
            }
        }
    }

    #[test]
    fn a_rank_that_is_gone_is_an_error() {
        let outcomes = group(2, |rank, group| {
            if rank == 1 {
                return Ok(());
            }
            let tensor = Tensor::zeros([4], (Kind::Float, Device::Cpu));
            group.all_reduce(&tensor, Reduce::Sum).and_then(Work::wait)
        });
        assert!(outcomes[0].as_ref().unwrap_err().to_string().starts_with("all-reduce: "), "{outcomes:?}");
    }
}
