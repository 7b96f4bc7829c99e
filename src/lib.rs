//! oss-run: a declarative experiment runner that trains gpt-oss models.
//!
//! One TOML file becomes a graph of stages (prepare, train, evaluate, sample, export) whose outputs live in a run
//! directory. This package is the program; what it is made of lies in the crates below it, which Cargo keeps apart:
//!
//! | crate | what it holds | uses | libtorch |
//! |---|---|---|---|
//! | `oss-config` | the experiment file: types, layers, presets, validation | | no |
//! | `oss-runs` | run directories, storage, logs, metrics, TensorBoard, signals | config | no |
//! | `oss-data` | sources, tokenizers, prepared tokens, batches | config, runs | no |
//! | `oss-torch` | operations and collectives that tch lacks, matrix products; the only unsafe code | | yes |
//! | `oss-kernels` | one pass over tensors on the CPU | torch | yes |
//! | `oss-train` | the model, sharding, checkpoints, formats, training, evaluation, generation | all of them | yes |
//!
//! Each layer of the program imports only those below it:
//!
//! | layer | what it holds |
//! |---|---|
//! | [`cli`] | one thin file per subcommand |
//! | [`report`] | one HTML page about runs and sweeps |
//! | [`sweep`] | many trials of one experiment |
//! | [`runner`], [`runs`] | executes the plan; the catalog of runs: listed, compared, labelled, removed |
//! | [`plan`] | experiment to stages, keys, staleness, estimates |
//! | [`stages`] | prepare, train, evaluate, sample, export: one thin file each |
#![forbid(unsafe_code)]

pub mod cli;
pub mod plan;
pub mod report;
pub mod runner;
pub mod runs;
pub mod stages;
pub mod sweep;
