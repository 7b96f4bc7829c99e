//! A key-value store shared by processes.

use std::ffi::{CString, c_char, c_int};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::ptr::{NonNull, null_mut};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::handle::{self, milliseconds, non_null};
use crate::bridge::checked;

/// How much longer than its timeout libtorch may take to give up.
const GRACE: Duration = Duration::from_secs(1);

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
}

/// A key-value store that several processes share over TCP (c10d's TCPStore).
#[derive(Debug)]
pub struct Store(pub(super) NonNull<handle::Store>);

// SAFETY: c10d's TCPStore takes a lock of its own around every exchange with the server, and its PrefixStore holds
// nothing but the store below and a constant text; both are shared between threads by PyTorch itself.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Serves a store in this process on `listener`, and connects to it.
    ///
    /// # Errors
    /// Fails if libtorch cannot take over the socket.
    pub fn serve(listener: TcpListener, timeout: Duration) -> Result<Self> {
        let address = listener.local_addr().context("the store's socket has no address")?;
        // A socket that listens on all interfaces is reached over loopback from here.
        let host =
            if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
        Self::open(&host, address.port(), Some(listener), timeout)
    }

    /// Connects to a store that another process serves, retrying until `timeout` expires.
    ///
    /// # Errors
    /// Fails if no store answers at that address.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        // libtorch's connection attempt times out, but it waits forever for the first reply of a server that is not a
        // store.
        let (sender, receiver) = mpsc::channel();
        let host = host.to_owned();
        thread::Builder::new().name("store".into()).spawn(move || {
            // The receiver may be gone by the time the attempt ends.
            let _ = sender.send(Self::open(&host, port, None, timeout));
        })?;
        match receiver.recv_timeout(timeout + GRACE) {
            Ok(opened) => opened,
            Err(_) => bail!("the store accepts connections but does not answer"),
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
        Ok(Self(non_null(store)))
    }

    /// The same store, with `prefix` prepended to every key.
    ///
    /// # Errors
    /// Fails only if the prefix contains a NUL.
    pub fn prefixed(&self, prefix: &str) -> Result<Self> {
        let prefix = CString::new(prefix)?;
        let mut prefixed = null_mut();
        // SAFETY: the store lives as long as `self`; the new one counts a reference to it.
        let message = unsafe { oss_store_prefixed(self.0.as_ptr(), prefix.as_ptr(), &mut prefixed) };
        checked("the store", message)?;
        Ok(Self(non_null(prefixed)))
    }

    /// Sets a key. Other connections see it a little later; later requests on this connection see it immediately.
    ///
    /// # Errors
    /// Fails if the server is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = CString::new(key)?;
        // SAFETY: the slice is read during the call only.
        let message = unsafe { oss_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len()) };
        checked("the store", message)
    }

    /// The value of a key, or `None` if it is not set.
    ///
    /// # Errors
    /// Fails if the server is gone.
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

    /// Deletes a key, if it exists.
    ///
    /// # Errors
    /// Fails if the server is gone.
    pub fn delete(&self, key: &str) -> Result<()> {
        let key = CString::new(key)?;
        // SAFETY: the text outlives the call.
        checked("the store", unsafe { oss_store_delete(self.0.as_ptr(), key.as_ptr()) })
    }

    /// Adds to a counter, which starts at 0, and returns the sum.
    ///
    /// # Errors
    /// Fails if the server is gone.
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
        // SAFETY: created by the C side, freed once.
        unsafe { oss_store_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Waits until a key is set, or deleted, and returns its value: the server processes each connection at its own
    /// pace.
    fn wait_for_key(store: &Store, key: &str, there: bool) -> Option<Vec<u8>> {
        loop {
            let value = store.get(key).unwrap();
            if value.is_some() == there {
                return value;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_store_is_shared_between_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Store::serve(listener, PATIENCE).unwrap();
        let other = Store::connect("127.0.0.1", port, PATIENCE).unwrap();
        assert_eq!(other.get("color").unwrap(), None);
        served.set("color", b"blue").unwrap();
        assert_eq!(wait_for_key(&other, "color", true).as_deref(), Some(&b"blue"[..]));
        served.delete("color").unwrap();
        assert_eq!(wait_for_key(&other, "color", false), None);
        other.set("empty", b"").unwrap();
        assert_eq!(wait_for_key(&served, "empty", true), Some(Vec::new()));
        assert_eq!((served.add("count", 2).unwrap(), other.add("count", 3).unwrap()), (2, 5));
        let apart = served.prefixed("apart").unwrap();
        assert_eq!(apart.get("color").unwrap(), None);
    }

    #[test]
    fn an_unresponsive_store_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect =
            || Store::connect("127.0.0.1", port, Duration::from_millis(300)).unwrap_err().to_string();
        // Bound but not served: the system accepts connections, and nothing answers.
        assert_eq!(connect(), "the store accepts connections but does not answer");
        // A closed port refuses connections.
        drop(listener);
        assert!(connect().starts_with("the store: "));
    }
}
