//! Fused CPU kernels: loops over tensor elements that do in one pass over memory what would take several libtorch
//! operations.
//!
//! Each kernel is written for one element at a time and compiled for several instruction sets; the best that the
//! machine supports is chosen at run time. Nothing is contracted to fused multiply-adds and sums have a fixed order, so
//! all versions give bit-identical results. Every kernel has a counterpart in libtorch operations (for GPUs and other
//! kinds), against which the tests compare it.

mod combine;
mod decode_attention;
mod exp;
mod flash;
mod int8;
mod number;
mod partition;
mod rms_norm;
mod rotary;
mod routing;
mod sampling_weights;
mod skinny_gemm;
mod softmax;
mod sum_of_squares;
mod swiglu;
#[cfg(test)]
mod tests;

pub use combine::combine;
pub use decode_attention::{append, decode_attention};
pub use flash::{Document, Flash};
pub use int8::{FEW as FEW_FOR_INT8, from_int8, int8_product, to_int8};
pub use number::Scalar;
pub use rms_norm::{rms_norm, rms_norm_backward};
pub use rotary::rotate;
pub use routing::route;
pub use sampling_weights::{likelihoods, max};
pub use skinny_gemm::{FEW, few_rows, few_rows_product, takes_few_rows};
pub use softmax::OnlineSoftmax;
pub use sum_of_squares::sum_of_squares;
pub use swiglu::{SwigluBackward, swiglu, swiglu_backward};

use tch::{Device, Kind, Tensor};

/// Whether the kernels support tensors like this one: f32 or bf16 on the CPU.
pub fn supports(like: &Tensor) -> bool {
    like.device() == Device::Cpu && matches!(like.kind(), Kind::Float | Kind::BFloat16)
}
