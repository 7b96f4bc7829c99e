//! The gpt-oss model and its training.
//!
//! Each layer imports only those below it:
//!
//! | layer | what it holds |
//! |---|---|
//! | [`train`] | the loop over steps |
//! | [`evaluation`], [`generation`], [`optimizer`] | validation loss; decoding; AdamW, Muon and their schedule |
//! | [`checkpoint`], [`hf_format`] | our checkpoints; Hugging Face directories in and out |
//! | [`distributed`] | ranks, the launcher, process groups, sharding |
//! | [`model`] | attention, experts, RoPE, norms, loss, initialization |
//! | [`tensor_file`], [`libtorch_error`] | safetensors files, written and read with digests; panics of libtorch as errors |
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod distributed;
pub mod evaluation;
pub mod generation;
pub mod hf_format;
pub mod libtorch_error;
pub mod model;
pub mod optimizer;
pub mod tensor_file;
pub mod train;
