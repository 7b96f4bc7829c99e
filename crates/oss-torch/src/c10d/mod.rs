//! c10d: the store through which processes rendezvous, and the groups that move tensors between them.

mod group;
mod store;

use std::ptr::NonNull;
use std::time::Duration;

pub use group::{ProcessGroup, Transport, Work};
pub use store::Store;

/// Opaque objects of the C side.
mod handle {
    pub enum Store {}
    pub enum Group {}
    pub enum Work {}
}

fn made<T>(handle: *mut T) -> NonNull<T> {
    NonNull::new(handle)
        .unwrap_or_else(|| unreachable!("the C side returned neither an object nor a message"))
}

fn milliseconds(timeout: Duration) -> i64 {
    timeout.as_millis().min(i64::MAX as u128) as i64
}
