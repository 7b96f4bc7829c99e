//! Loops over the elements of tensors on the CPU, where one pass over memory does what would be several operations of
//! libtorch.
//!
//! Each is written for one element at a time and compiled for several instruction sets, of which the machine's best is
//! chosen when it runs. Nothing is contracted to fused multiply-adds and sums have a fixed order, so that all of them give
//! the same bits. Every kernel has a counterpart in operations of libtorch (for GPUs and other kinds), which tests hold it
//! to.

mod attend;
mod dispatch;
mod exp;
mod few_rows;
mod flash;
mod int8;
mod likelihood;
mod number;
mod rms_norm;
mod rotary;
mod routing;
mod rows;
mod softmax;
mod squares;
mod swiglu;
#[cfg(test)]
mod tests;

pub use attend::{append, attend};
pub use dispatch::combine;
pub use few_rows::{FEW, few_rows, few_rows_product, takes_few_rows};
pub use flash::{Document, Flash};
pub use int8::{FEW as FEW_FOR_INT8, from_int8, int8_product, to_int8};
pub use likelihood::{likelihoods, max};
pub use number::Number;
pub use rms_norm::{rms_norm, rms_norm_backward};
pub use rotary::rotate;
pub use routing::route;
pub use softmax::OnlineSoftmax;
pub use squares::sum_of_squares;
pub use swiglu::{SwigluBackward, swiglu, swiglu_backward};

use tch::{Device, Kind, Tensor};

/// Whether the kernels take tensors like this one: f32 or bf16 on the CPU.
pub fn take(like: &Tensor) -> bool {
    like.device() == Device::Cpu && matches!(like.kind(), Kind::Float | Kind::BFloat16)
}
