//! What a run is on a machine: its directory, the files in it, what people watch, and how it is stopped.
//!
//! * [`run_dir`]: every path, the manifest, the locks.
//! * [`storage`]: directories that appear whole or not at all.
//! * [`monitor`]: logs, metrics, TensorBoard, progress.
//! * [`interrupt`]: SIGINT and SIGTERM.
#![forbid(unsafe_code)]

pub mod interrupt;
pub mod monitor;
pub mod run_dir;
pub mod storage;
