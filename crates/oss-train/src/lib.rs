//! The gpt-oss model and its training.
//!
//! Each layer imports only those below it:
//!
//! | layer | contents |
//! |---|---|
//! | [`train`] | the training loop |
//! | [`evaluation`], [`generation`], [`optimizer`] | validation loss; decoding; AdamW, Muon, learning-rate schedules |
//! | [`checkpoint`], [`hf_format`] | checkpoints; reading and writing Hugging Face directories |
//! | [`distributed`] | ranks, the launcher, process groups, sharding |
//! | [`model`] | attention, experts, RoPE, norms, loss, initialization |
//! | [`tensor_file`], [`libtorch_error`] | safetensors files with digests; libtorch panics as errors |
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
