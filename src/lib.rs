//! oss-run: a declarative experiment runner that trains gpt-oss models.
//!
//! One TOML file becomes a graph of stages (prepare, train, evaluate, sample, export) whose outputs live in a run
//! directory. Each layer below imports only the layers under it:
//!
//! | layer | what it holds |
//! |---|---|
//! | [`cli`] | one thin file a subcommand |
//! | [`report`] | what people read afterwards: one page about runs and sweeps |
//! | [`sweep`] | many trials of one experiment |
//! | [`runner`], [`runs`] | walks the plan; many runs: listed, compared, labelled, removed |
//! | [`stages`] | prepare, train, evaluate, sample, export: one thin file each |
//! | [`plan`], [`train`] | experiment to stages, keys, staleness, estimates; the training loop and the chain driver |
//! | [`evaluation`], [`generation`], [`optimizer`] | used by the stages and inside training; AdamW, Muon, schedules |
//! | [`checkpoint`], [`hf_format`] | our checkpoints; Hugging Face directories in and out |
//! | [`distributed`] | where a rank stands, the launcher, process groups |
//! | [`model`], [`data`] | attention, experts, rope, norm, loss, init; sources, tokenizer, token files, batches |
//! | [`monitor`] | metrics log, TensorBoard, progress |
//! | [`run_dir`] | every path, manifest, status, locks |
//! | [`experiment`] | the file: types, layers, presets, validation |
//! | [`storage`] | directories that appear whole or not at all, the safetensors files in them, locks between processes |
//! | [`kernels`] | loops over the elements of tensors on the CPU |
//! | [`torch`] | libtorch operations missing from tch, the memory of tensors |
//! | [`error`] | what goes wrong, with what to do about it as data; exit statuses |
//! | [`interrupt`] | SIGINT and SIGTERM |

pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod distributed;
pub mod error;
pub mod evaluation;
pub mod experiment;
pub mod generation;
pub mod hf_format;
pub mod interrupt;
pub mod kernels;
pub mod model;
pub mod monitor;
pub mod optimizer;
pub mod plan;
pub mod report;
pub mod run_dir;
pub mod runner;
pub mod runs;
pub mod stages;
pub mod storage;
pub mod sweep;
pub mod torch;
pub mod train;
