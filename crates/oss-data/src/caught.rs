//! Panics of the crates that read other people's files, as errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `read` returns, or what it panicked with: `tokenizers` and `parquet` do so on some damaged files.
///
/// After a panic, whatever `read` was changing must not be used again.
pub(super) fn caught<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind").to_owned()
}
