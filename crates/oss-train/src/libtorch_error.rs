//! Converting libtorch failures into errors.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Result, anyhow};
use oss_config::error::UserError;

/// Runs tensor code and turns panics of libtorch operations into errors.
///
/// tch's operations panic when libtorch throws, which keeps arithmetic readable. In a correct program, only running out
/// of memory makes it throw, so that error has a hint. Any other panic is resumed.
pub fn catch_torch_panic<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            if !message.contains("Torch(\"") {
                resume_unwind(panic);
            }
            if message.contains("out of memory") || message.contains("can't allocate memory") {
                return Err(anyhow!(
                    UserError::failed("out of memory")
                        .hint("lower train.micro_batch_size, set train.activation_checkpointing = true, or use bf16")
                        .because(anyhow!(message))
                ));
            }
            Err(anyhow!("libtorch failed: {message}"))
        }
    }
}
