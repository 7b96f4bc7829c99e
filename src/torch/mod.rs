//! What tch lacks: fused operations and collectives through a C++ bridge, and the bytes behind a tensor. The only unsafe code.

mod bridge;
mod bytes;
mod c10d;
mod failure;
mod gemm;
mod mapped;
mod parallel;
mod transfer;

pub use bridge::{
    AdamWOptions, FlashForward, Packed, cuda_peak_bytes, flash_attention_backward, flash_attention_forward,
    fused_adamw, set_deterministic,
};
pub use bytes::{
    Element, bytes, bytes_mut, element_bytes, fetch_ahead, i64_slice, slice, slice_mut, tensor_from_bytes,
};
pub use c10d::{ProcessGroup, Store, Transport, Work};
pub use failure::guard;
pub use gemm::{
    Block, Gemm, Group, Onto, SCALE_BYTES, block_product, gemm, gemm_each, gemm_grouped, has_bf16_gemm,
    has_few_rows_gemm, has_gemm, has_int8_gemm, int8_gemm,
};
pub use mapped::MappedU32;
pub use parallel::{num_threads, parallel_each, shares};
pub use transfer::{copy_async, fetch, page_locked, send, synchronize, upload};

/// libtorch's version that this program is built for.
pub const LIBTORCH_VERSION: &str = "2.11.0";
