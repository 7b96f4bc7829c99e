//! Turns an experiment into stages, keys, staleness and estimates.
//!
//! - [`table`] defines what each value invalidates, and [`invalidation_docs`] which stages that affects.
//! - [`complete`] fills in what the experiment leaves to its inputs.
//! - [`inputs`] identifies what an experiment reads, [`keys`] hashes it, and [`identity`] finds its run.
//! - [`Graph`] compares each stage's key with the run's records; [`staleness`] explains why a stage has to run, and
//!   [`render`] renders the graph. [`derived`] fills in the values that follow from others.
//! - [`estimate`], [`memory`], [`communication`] and [`disk`] compute the costs, [`calibration`] measures throughput,
//!   [`gpus`] checks which GPUs a rank fits on, and [`lints`] warns about unwise settings.

pub mod activations;
pub mod calibration;
pub mod communication;
mod completion;
pub mod corpus;
pub mod derived;
pub mod disk;
mod epochs;
mod error;
pub mod estimate;
pub mod gpus;
pub mod graph;
mod hub_pins;
pub mod identity;
pub mod initial;
pub mod inputs;
pub mod invalidation_docs;
pub mod keys;
pub mod lints;
pub mod memory;
pub mod mesh;
pub mod overlap;
mod planned_stage;
pub mod render;
pub mod staleness;
pub mod state_size;
pub mod table;
pub mod throughput;
mod tokenizer;
pub mod unfinished;

pub use completion::complete;
pub use corpus::Corpus;
pub use error::PlanError;
pub use graph::{Graph, graph};
pub use inputs::{Inputs, NetworkAccess};
pub use oss_runs::run_dir::Stage;
pub use planned_stage::{Choices, PlannedStage, stages, stages_after};
pub use staleness::{Freshness, Reason};
