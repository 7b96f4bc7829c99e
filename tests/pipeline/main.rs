//! End-to-end tests of the program: projects on disk, runs, freshness of stages, refused commands, and recovery from
//! stops.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod command_line;
mod completion;
mod damage;
mod first_steps;
mod identity;
mod initial_weights;
mod length;
mod low_precision;
mod many_runs;
mod numbers;
mod project;
mod ranks;
mod removal;
mod report;
mod reproduction;
mod run_management;
mod status;
mod stops;
mod sweeps;
mod terminal;
mod text;
mod tutorial;
mod widths;
