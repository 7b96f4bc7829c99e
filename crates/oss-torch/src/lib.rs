//! Extensions to tch: fused operations and collectives through a C++ bridge, matrix products, and slices of tensor
//! memory ([`Slices`], [`OwnedTensor`]). Most unsafe code is here and in kernels that use [`Slices`].

mod address_range;
mod bridge;
mod bytes;
mod c10d;
mod gemm;
mod owned;
mod parallel;
mod slices;
mod spinning;
mod transfer;

pub use bridge::{
    AdamWOptions, FlashForward, Packed, cuda_peak_bytes, flash_attention_backward, flash_attention_forward,
    fused_adamw, set_deterministic,
};
pub use bytes::{Element, copy_bytes, element_bytes, fetch_ahead, tensor_from_bytes, to_vec};
pub use c10d::{ProcessGroup, Store, Transport, Work};
pub use gemm::{
    Accumulate, Block, Gemm, Group, SCALE_BYTES, block_product, gemm, gemm_each, gemm_grouped, has_bf16_gemm,
    has_few_rows_gemm, has_gemm, has_int8_gemm, int8_gemm,
};
pub use owned::OwnedTensor;
pub use parallel::{num_threads, parallel_each, shares};
pub use slices::Slices;
pub use spinning::adapt_spinning;
pub use transfer::{copy_async, fetch, pin_memory, synchronize, to_device, upload};

/// The libtorch version that this program is built for.
pub const LIBTORCH_VERSION: &str = "2.11.0";
