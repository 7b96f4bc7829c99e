//! Loops over the elements of tensors on the CPU, where one pass over memory does what would be several operations of
//! libtorch.
//!
//! Each is written for one element at a time and compiled for several instruction sets, of which the machine's best is
//! chosen when it runs. Nothing is contracted to fused multiply-adds and sums have a fixed order, so that all of them give
//! the same bits. Every kernel has a counterpart in operations of libtorch (for GPUs and other kinds), which tests hold it
//! to.

mod exp;
mod number;
mod softmax;

pub use number::Number;
pub use softmax::OnlineSoftmax;

use tch::{Device, Kind, Tensor};

/// Whether the kernels take tensors like this one: f32 or bf16 on the CPU.
pub fn take(like: &Tensor) -> bool {
    like.device() == Device::Cpu && matches!(like.kind(), Kind::Float | Kind::BFloat16)
}
