//! Objects of the C side.

use std::ptr::NonNull;
use std::time::Duration;

/// The C side's store.
pub enum Store {}

/// The C side's process group.
pub enum Group {}

/// The C side's pending collective.
pub enum Work {}

/// A handle that the C side returned without an error message.
pub fn non_null<T>(handle: *mut T) -> NonNull<T> {
    NonNull::new(handle)
        .unwrap_or_else(|| unreachable!("the C side returned neither an object nor a message"))
}

/// The timeout in milliseconds, as the C side expects it.
pub fn milliseconds(timeout: Duration) -> i64 {
    timeout.as_millis().min(i64::MAX as u128) as i64
}
