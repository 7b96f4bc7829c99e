//! A run on disk: its directory, the files in it, monitoring, and stop signals.
//!
//! * [`run_dir`]: every path, the manifest, the locks.
//! * [`storage`]: atomic directories and file locks.
//! * [`monitor`]: logs, metrics, TensorBoard, progress.
//! * [`interrupt`]: SIGINT and SIGTERM.
#![forbid(unsafe_code)]

pub mod interrupt;
pub mod monitor;
pub mod run_dir;
pub mod storage;
