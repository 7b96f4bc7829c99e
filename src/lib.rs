//! oss-run: a declarative experiment runner that trains gpt-oss models.
//!
//! One TOML file becomes a graph of stages (prepare, train, evaluate, sample, export) whose outputs live in a run
//! directory. This package is the program. It is built from these crates:
//!
//! | crate | contents | depends on | libtorch |
//! |---|---|---|---|
//! | `oss-config` | the experiment file: types, layers, presets, validation | | no |
//! | `oss-runs` | run directories, storage, logs, metrics, TensorBoard, signals | config | no |
//! | `oss-data` | sources, tokenizers, prepared tokens, batches | config, runs | no |
//! | `oss-torch` | operations and collectives missing from tch, matrix products; most unsafe code | | yes |
//! | `oss-kernels` | fused single-pass CPU kernels | torch | yes |
//! | `oss-train` | the model, sharding, checkpoints, formats, training, evaluation, generation | all of the above | yes |
//!
//! Each layer of the program imports only those below it:
//!
//! | layer | contents |
//! |---|---|
//! | [`cli`] | one thin file per subcommand |
//! | [`report`] | the HTML report on runs and sweeps |
//! | [`sweep`] | runs the trials of a sweep |
//! | [`runner`], [`runs`] | execute the plan; list, compare, label and remove runs |
//! | [`plan`] | turns an experiment into stages, keys, staleness and estimates |
//! | [`stages`] | prepare, train, evaluate, sample, export: one thin file each |
#![forbid(unsafe_code)]

pub mod cli;
pub mod plan;
pub mod report;
pub mod runner;
pub mod runs;
pub mod stages;
pub mod sweep;
